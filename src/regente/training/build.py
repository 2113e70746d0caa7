"""Stage 4 of a run: the parts of a training, ready to fit from its start or from its newest state."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regente.jobs import console
from regente.jobs.hardware import fit_trainer
from regente.tracking.lightning_logger import JournalLogger
from regente.training.assemble import Parts, assemble
from regente.training.callback_list import Callbacks, list_callbacks
from regente.training.callbacks.changed_settings import changed
from regente.training.checkpoints.initialization import ResumeState, find_resume_state, initialize_from
from regente.training.checkpoints.saving import SafeSaving
from regente.training.performance import tune_process
from regente.training.recovery import Recovery
from regente.training.session import Session


@dataclass(frozen=True)
class Training(Parts):
    """The parts of a run, with what its end asks them for."""

    callbacks: Callbacks
    saving: SafeSaving
    recovery: Recovery
    state: ResumeState | None  # from which it goes on


def build(current: Session, before: Training | None = None, note: str = "") -> Training:
    """Build the training of a job and show what it is; `before` and `note`: a fit that ended early, and why.

    Raises:
        ConfigError: when a part refuses its arguments.
        MachineError: when a device is not there.
        CheckpointError: when no state of an interrupted run is whole.
        TrackingError: when the store refuses the run.
    """
    job, config, recorder = current.job, current.config, current.recorder
    current.started = current.started or time.perf_counter()
    config["trainer"], notes = fit_trainer(config["trainer"])
    notes = [note] if before else notes
    prepare_process(config["trainer"])
    recovery = before.recovery if before else Recovery(job, config)
    state = find_resume_state(job, notes)
    change = changed(config, job.changes_since(state.attempt) if state else {}, recovery.rate)
    callbacks = list_callbacks(current, change)
    logger = JournalLogger(recorder.journal, str(job.path), job.experiment, job.path.name)
    saving = before.saving if before else SafeSaving(lambda text: console.note(current.out, text))
    parts = assemble(config, job, callbacks.ordered, logger, saving, state)
    if state is None and config["init_from"]:
        notes.append(initialize_from(parts.task, Path(config["init_from"])))
    recorder.require_store()
    if recorder.problem:
        notes.append(recorder.problem_note())
    console.setup(current.out, parts, [*notes, *parts.notes])
    return Training(**vars(parts), callbacks=callbacks, saving=saving, recovery=recovery, state=state)


def prepare_process(trainer: dict[str, Any]) -> None:
    """Set threads, memory and the precision of float32 products for all that this process computes."""
    tune_process(trainer["accelerator"])
    torch.set_float32_matmul_precision(trainer.get("matmul_precision") or "highest")
