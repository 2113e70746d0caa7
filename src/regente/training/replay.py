"""Repeats a run up to the last step of its trace, only to make a second trace."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from regente.jobs.hardware import fit_trainer
from regente.jobs.job import Job
from regente.tracking.journal import Journal
from regente.tracking.lightning_logger import JournalLogger
from regente.training.assemble import assemble
from regente.training.build import prepare_process
from regente.training.callback_list import configured
from regente.training.callbacks.step_seeding import StepSeeding
from regente.training.callbacks.trace import Enough, Replay
from regente.training.checkpoints.initialization import initialize_from
from regente.training.checkpoints.saving import SafeSaving
from regente.training.fit import train


def replay(job: Job, config: dict[str, Any], trace: Replay) -> None:
    """Train until the trace is full, without a record and a test."""
    config["trainer"], _ = fit_trainer(config["trainer"])
    prepare_process(config)
    config["trainer"]["steps_per_call"] = trace.group
    saving = SafeSaving(lambda _: None)
    resume, others = configured(config, job)
    callbacks = [StepSeeding(config["seed"]), *resume, *others, trace]
    # some callbacks want a logger
    logger = JournalLogger(Journal(Path(os.devnull)), job)
    parts = assemble(config, job, callbacks, logger, saving)
    if config["init_from"]:
        initialize_from(parts.task, Path(config["init_from"]))
    with suppress(Enough):
        train(parts)
    saving.teardown()
