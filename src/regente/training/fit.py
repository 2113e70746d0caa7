"""Stages 5 and 6 of a run: fit, test the best weights, and record what came of it."""

import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.utilities.model_helpers import is_overridden

from regente.errors import CheckpointError, ConfigError, DivergedError, Problem
from regente.jobs import console
from regente.jobs.checkpoint_files import load
from regente.jobs.job import RESULT, write_json
from regente.jobs.result import Result, as_test_metrics
from regente.tracking.lightning_logger import JournalLogger
from regente.tracking.logged_model import export_program
from regente.tracking.run_artifacts import logs_model
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
        minutes = current.config["trainer"].get("max_minutes")
        limit = f"trainer.max_minutes={minutes}" if minutes is not None else "trainer.max_time"
        console.note(current.out, f"{limit}: time is up in epoch {parts.trainer.current_epoch}")
    pruned = training.callbacks.pruning is not None and training.callbacks.pruning.pruned
    epoch, checkpoint, metrics = best_weights(parts, training.saving)
    if (monitor := current.config["monitor"]["metric"]) not in metrics and checkpoint:
        logged = ", ".join(metrics) or "nothing"
        what = f"never logged, so the last weights are kept; logged: {logged}"
        console.note(current.out, f"monitor.metric={monitor}: {what}")
    metrics = training.callbacks.metrics.of_validation(metrics, monitor)
    if not pruned and has_test(parts):
        metrics |= test(parts, checkpoint)
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


def best_weights(parts: Parts, saving: SafeSaving) -> tuple[int | None, str | None, dict[str, float]]:
    """Epoch (from 0) and path of the best checkpoint, and the metrics that were current when it was saved.

    Without a validation, and so without a best one, the weights at the end are kept.
    """
    trainer = parts.trainer
    keeps = parts.checkpoint
    path = saving.kept(keeps.best_model_path) if keeps else ""
    if not path and keeps and trainer.global_step and not keeps.best_model_path:
        last = Path(str(keeps.dirpath)) / "last_weights.ckpt"
        trainer.save_checkpoint(last, weights_only=True)
        if path := saving.kept(str(last)):
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            return max(0, trainer.current_epoch - 1), path, values
    if path:
        content = load(Path(path), mmap=True)
        return content["epoch"], path, content.get("metrics", {})
    return None, None, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test(parts: Parts, checkpoint: str | None) -> dict[str, float]:
    """The metrics of the test split, with the weights of a checkpoint or, without one, the last."""
    trainer, task = parts.trainer, parts.task
    path = checkpoint
    # a callback may load other weights from a file than those that it was validated with: EMAWeightAveraging does
    if checkpoint and type(trainer.strategy).load_model_state_dict is Strategy.load_model_state_dict:
        content, path = load(Path(checkpoint)), None
        load_weights(task, content, Path(checkpoint))
    return metrics_of_test(parts, path)


def metrics_of_test(parts: Parts, path: str | None = None) -> dict[str, float]:
    """The metrics of the test split with the weights that the task has, or those of a file."""
    logger = parts.trainer.logger
    if isinstance(logger, JournalLogger):
        logger.testing = True
    parts.trainer.test(parts.task, datamodule=parts.data, ckpt_path=path, weights_only=True, verbose=False)
    return as_test_metrics(parts.trainer.callback_metrics)


def load_weights(task: LightningModule, content: dict[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint, whose content is given, into a task.

    Raises:
        CheckpointError: when they are those of another model.
    """
    if not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(
            f"{path}: no state_dict in it, so it is no checkpoint of a run; name another file"
        )
    task.on_load_checkpoint(content)
    try:
        task.load_state_dict(content["state_dict"], strict=task.strict_loading)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the weights of another model ({reason})") from error


def has_validation(parts: Parts) -> bool:
    """Whether there is a validation."""
    return is_overridden("validation_step", parts.task) and is_overridden("val_dataloader", parts.data)


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
        write_json(current.job.path / RESULT, facts)
        journal.write("result", **facts)
        wanted = current.recorder.uri and logs_model(current.job, current.config["tracking"]["log_model"])
        if wanted and result.best_checkpoint:
            with suppress(OSError):  # a full disk: the shipper says so
                export_program(current.job, Path(result.best_checkpoint), own=True)
    if saving.failure:  # raised last: everything else is done
        raise CheckpointError(f"{saving.failure}; make room, then regente resume continues the run")
    console.closing(current.out, current.job, facts)
