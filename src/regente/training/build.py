"""Stage 4 of a run: the parts of a training, ready to fit from its start or from its newest state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import seed_everything

from regente.config.environment import literal_secrets
from regente.jobs import console
from regente.jobs.hardware import fit_trainer
from regente.tracking.lightning_logger import JournalLogger
from regente.training.assemble import Parts, assemble, make_loggers
from regente.training.callback_list import Callbacks
from regente.training.callbacks.changed_settings import ChangedSettings
from regente.training.checkpoints.initialization import ResumeState, find_resume_state, initialize_from
from regente.training.checkpoints.saving import SafeSaving
from regente.training.performance import tune_process
from regente.training.recovery import Recovery, release
from regente.training.session import Session


@dataclass
class Training:
    """The training of a run. After NaN or out of memory its parts are built again; the rest stays."""

    callbacks: Callbacks
    saving: SafeSaving
    recovery: Recovery
    parts: Parts
    state: ResumeState | None  # from which it goes on


def build(current: Session) -> Training:
    """Build the training of a job and show what it is.

    Raises:
        ConfigError: when a part refuses its arguments.
        MachineError: when a device is not there.
        CheckpointError: when all states of an interrupted run are damaged.
        TrackingError: when the store refuses the run.
    """
    config, out = current.config, current.out
    config["trainer"], notes = fit_trainer(config["trainer"])
    notes += literal_secrets(current.job.config)
    prepare_process(config)
    recovery = Recovery(current.job, config)
    callbacks = Callbacks(current)
    saving = SafeSaving(lambda text: console.note(out, text))
    parts, state = _build_parts(current, callbacks, saving, 1.0, notes)
    return Training(callbacks, saving, recovery, parts, state)


def build_again(training: Training, current: Session, note: str) -> None:
    """Build new parts after a fit that ended early; `note` says why it did."""
    del training.parts  # before the new ones take their memory
    release()
    prepare_process(current.config)
    training.parts, training.state = _build_parts(
        current, training.callbacks, training.saving, training.recovery.rate, [note]
    )


def _build_parts(
    current: Session, own: Callbacks, saving: SafeSaving, rate: float, notes: Sequence[str]
) -> tuple[Parts, ResumeState | None]:
    job, config, recorder = current.job, current.config, current.recorder
    notes = list(notes)
    state = find_resume_state(job, notes)
    saving.verified = state.path if state else None
    logger = JournalLogger(recorder.journal, job, recorder.redact)
    logger.others = make_loggers(config, job)
    parts = assemble(config, job, own.ordered(ChangedSettings(rate)), [logger, *logger.others], saving, state)
    if state is None and config["init_from"]:
        notes.append(initialize_from(parts.task, Path(config["init_from"])))
    recorder.require_store()
    if recorder.problem:
        notes.append(recorder.problem_note())
    console.setup(current.out, parts, [*notes, *parts.notes])
    return parts, state


def prepare_process(config: dict[str, Any]) -> None:
    """Set seed, threads, memory and the precision of float32 products for all that this process computes."""
    seed_everything(config["seed"], workers=True, verbose=False)  # a user's callback may draw when it is made
    tune_process(config["trainer"]["accelerator"])
    torch.set_float32_matmul_precision(config["trainer"].get("matmul_precision") or "highest")
