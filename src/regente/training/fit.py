"""Stages 5 and 6 of a run: fit, test the best weights, and record what came of it."""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.model_helpers import is_overridden

from regente.errors import CheckpointError, ConfigError, DivergedError, Problem
from regente.jobs import console
from regente.jobs.checkpoint_files import load
from regente.jobs.job import write_json
from regente.jobs.result import Result
from regente.training.assemble import Parts, refused_by
from regente.training.build import Training, build_again
from regente.training.checkpoints.initialization import ResumeState
from regente.training.checkpoints.saving import SafeSaving
from regente.training.lightning_internals import overwrite_checkpoints
from regente.training.performance import peak_megabytes
from regente.training.session import Session


def fit(training: Training, current: Session) -> Result:
    """Train, and test the best weights; after NaN or out of memory build and train anew, if the config says so.

    Raises:
        DivergedError: when a loss or a weight is not a number.
    """
    while True:
        try:
            train(training.parts, training.state)
            break
        except (DivergedError, torch.OutOfMemoryError) as error:
            training.saving.flush()
            note = training.recovery.handle(error, training.parts)
            training.parts.trainer.strategy.teardown()
        build_again(training, current, note)
    parts, progress = training.parts, training.callbacks.progress
    if time_is_up(parts):
        minutes = current.config["trainer"]["max_minutes"]
        note = f"trainer.max_minutes={minutes}: time is up in epoch {parts.trainer.current_epoch}"
        console.note(current.out, note)
    pruned = training.callbacks.pruning is not None and training.callbacks.pruning.pruned
    epoch, checkpoint, metrics = test(parts, training.saving, skip=pruned)
    return Result(
        best_epoch=epoch,
        best_checkpoint=checkpoint,
        pruned=pruned,
        epochs=parts.trainer.current_epoch,
        metrics=metrics,
        monitor=current.config["monitor"],
        seconds=time.perf_counter() - current.started,
        peak_megabytes=peak_megabytes(),
        samples_per_second=progress.samples * parts.trainer.world_size / max(progress.seconds, 1e-9),
    )


def train(parts: Parts, state: ResumeState | None = None) -> None:
    """Train, from a state of the run if there is one, with validation as the trainer's settings say."""
    path = None
    if state is not None:
        path = str(state.path)
        overwrite_checkpoints(parts.trainer.checkpoint_callbacks)
    try:
        parts.trainer.fit(parts.task, datamodule=parts.data, ckpt_path=path, weights_only=True)
    except (TypeError, ValueError) as error:
        if where := refused_by(error):
            raise ConfigError([Problem(where, str(error))]) from error
        raise


def time_is_up(parts: Parts) -> bool:
    """Whether the time limit ended the training."""
    timers = [each for each in parts.trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    return any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)


def test(parts: Parts, saving: SafeSaving, *, skip: bool) -> tuple[int | None, str | None, dict[str, float]]:
    """Test the best weights, or the last where none were kept; `skip`: they are not worth a test.

    Returns epoch (from 0) and path of the best checkpoint, and the validation and test metrics of its weights.
    """
    path = saving.kept(parts.checkpoint.best_model_path) if parts.checkpoint else ""
    metrics = {name: float(value) for name, value in parts.trainer.callback_metrics.items()}
    epoch = None
    if path:
        content = load(Path(path), mmap=True)
        epoch, metrics = content["epoch"], content["metrics"]
    found = {name: value for name, value in metrics.items() if name.startswith("val/")}
    if not skip and has_test(parts):
        parts.trainer.test(
            parts.task, datamodule=parts.data, ckpt_path=path or None, weights_only=True, verbose=False
        )
        tested = parts.trainer.callback_metrics
        found |= {name: float(value) for name, value in tested.items() if name.startswith("test/")}
    return epoch, path or None, found


def has_test(parts: Parts) -> bool:
    """Whether there is a test: a task and a data module of the user's may do without."""
    return is_overridden("test_step", parts.task) and is_overridden("test_dataloader", parts.data)


def record(result: Result, saving: SafeSaving, current: Session) -> None:
    """Write the result into the job directory, the run and the terminal.

    Raises:
        CheckpointError: when the last checkpoint could not be written.
    """
    facts = asdict(result)
    if current.rank.number == 0:
        journal = current.recorder.journal
        journal.write("tags", values={"regente.best_checkpoint": result.best_checkpoint or "none"})
        write_json(current.job.path / "result.json", facts)
        journal.write("result", **facts)
    if saving.failure:  # raised last: everything else is done
        raise CheckpointError(f"{saving.failure}; make room, then regente resume continues the run")
    console.closing(current.out, current.job, facts)
