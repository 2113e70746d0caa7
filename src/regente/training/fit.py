"""Steps 4 and 5 of a run: build, fit, and test the best weights. Imports all that is heavy."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.model_helpers import is_overridden
from rich.console import Console

from regente.config.signatures import read
from regente.errors import CheckpointError, DivergedError
from regente.jobs import console
from regente.jobs.checkpoint_files import load
from regente.jobs.hardware import fit_trainer, world_size
from regente.jobs.job import Job, write_json
from regente.tracking.logger import JournalLogger
from regente.tracking.recorder import Recorder
from regente.training.build import Parts, build
from regente.training.callbacks.changed_settings import changed
from regente.training.callbacks.checkpoint_metrics import CheckpointMetrics
from regente.training.callbacks.progress import ProgressLine
from regente.training.callbacks.pruning import pruning
from regente.training.callbacks.rank_sync import RankSync
from regente.training.callbacks.resume_states import save_state
from regente.training.callbacks.run_description import RunDescription
from regente.training.callbacks.sample_predictions import SamplePredictions
from regente.training.callbacks.sample_texts import SampleTexts
from regente.training.callbacks.skip_steps import SkipSteps
from regente.training.callbacks.step_profile import StepProfile
from regente.training.callbacks.stop_on_signal import StopOnSignal
from regente.training.callbacks.trace import Enough, Replay, RunTrace
from regente.training.callbacks.training_loss import TrainingLoss
from regente.training.checkpoints.initialization import ResumeState, find_resume_state, initialize_from
from regente.training.checkpoints.saving import SafeSaving
from regente.training.lightning_internals import overwrite_checkpoints
from regente.training.performance import peak_megabytes, tune_process
from regente.training.recovery import Recovery, release


def train(job: Job, config: dict[str, Any], recorder: Recorder, out: Console) -> dict[str, Any]:
    """Train a job and return its result: best epoch and checkpoint, metrics of the best weights, time, speed."""
    started = time.perf_counter()
    if config["trainer"].get("find_lr") or config["trainer"].get("find_batch_size"):
        from regente.training.finders import settled

        config = settled(job, config, recorder.journal, out)
    notes = _settle(config)
    losses = TrainingLoss(skipping=config["trainer"].get("on_nan") == "skip_step")
    progress, trial = ProgressLine(out, losses), pruning(recorder.journal)
    callbacks = _callbacks(job, config, recorder, losses, progress, *filter(None, [trial]))
    saving = SafeSaving(lambda text: console.note(out, text))
    parts = _fitted(job, config, recorder, out, callbacks, saving, notes)
    if time_is_up(parts):
        minutes = config["trainer"]["max_minutes"]
        console.note(out, f"trainer.max_minutes={minutes}: time is up in epoch {parts.trainer.current_epoch}")
    pruned = trial is not None and trial.pruned
    best, metrics = evaluate(parts, saving, test=not pruned)

    result = {
        **best,
        "pruned": pruned,
        "epochs": parts.trainer.current_epoch,
        "metrics": metrics,
        "monitor": config["monitor"],
        "seconds": time.perf_counter() - started,
        "peak_megabytes": peak_megabytes(),
        "samples_per_second": progress.samples * parts.trainer.world_size / max(progress.seconds, 1e-9),
    }
    if parts.trainer.is_global_zero:
        recorder.journal.write("tags", values={"regente.best_checkpoint": best["best_checkpoint"] or "none"})
        write_json(job.path / "result.json", result)
        recorder.journal.write("result", **result)
    if saving.failure:  # said last: everything else is done
        raise CheckpointError(f"{saving.failure}; make room, then regente resume continues the run")
    return result


def _callbacks(
    job: Job, config: dict[str, Any], recorder: Recorder, losses: TrainingLoss, *others: Callback
) -> list[Callback]:
    """Regente's own: what is noted of a run, and what stops it and keeps its ranks in step."""
    journal, trainer = recorder.journal, config["trainer"]
    callbacks = [RunDescription(job, journal), RunTrace(job, journal), losses, CheckpointMetrics()]
    callbacks += [SamplePredictions(job.path), SampleTexts(job, journal), *others, StopOnSignal(save_state)]
    if world_size(trainer) > 1:
        callbacks.append(RankSync())
    if calls := trainer.get("profile_calls"):
        callbacks.append(StepProfile(job.path / "profile", journal, calls))
    if trainer.get("on_nan") == "skip_step":
        callbacks.append(SkipSteps())
    return callbacks


def _fitted(
    job: Job,
    config: dict[str, Any],
    recorder: Recorder,
    out: Console,
    callbacks: list[Callback],
    saving: SafeSaving,
    notes: list[str],
) -> Parts:
    """Build and fit, from the newest state if there is one; and again, as the config wants, after NaN or out of memory."""
    recovery = Recovery(job, config)
    while True:
        logger = JournalLogger(recorder.journal, str(job.path), job.experiment, job.path.name)
        point = find_resume_state(job, notes)
        change = changed(config, job.changes_since(point.attempt) if point else {}, recovery.rate)
        parts = build(config, job, [*callbacks, change], logger, saving, point, recorder.attempt)
        if point is None and config["init_from"]:
            notes.append(initialize_from(parts.task, Path(config["init_from"])))
        recorder.require_store()
        if recorder.trouble:
            notes.append(f"{recorder.trouble_line()}")
        console.setup(out, parts, [*notes, *parts.notes])
        try:
            fit(parts, point)
            return parts
        except (DivergedError, torch.OutOfMemoryError) as error:
            saving.flush()
            notes = [recovery.handle(error, parts)]
            parts.trainer.strategy.teardown()
        release()


def time_is_up(parts: Parts) -> bool:
    """Whether the clock ended the training."""
    timers = [each for each in parts.trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    return any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)


def _settle(config: dict[str, Any]) -> list[str]:
    """Fit the trainer's settings to this machine, and this process to them; a line for each thing done otherwise."""
    config["trainer"], notes = fit_trainer(config["trainer"])
    tune_process(config["trainer"]["accelerator"])
    torch.set_float32_matmul_precision(config["trainer"].get("matmul_precision") or "highest")
    return notes


def replay(job: Job, config: dict[str, Any], trace: Replay) -> None:
    """Train as far as a trace goes, for the trace alone: no logger, no journal, no test."""
    _settle(config)
    if "steps_per_call" in read(config["task"]["_target_"]).parameters:
        config["task"]["steps_per_call"] = trace.group
    saving = SafeSaving(lambda _: None)
    parts = build(config, job, [trace], None, saving)
    if config["init_from"]:
        initialize_from(parts.task, Path(config["init_from"]))
    with suppress(Enough):
        fit(parts)
    saving.teardown()


def fit(parts: Parts, point: ResumeState | None = None) -> None:
    """Train, with validation as the trainer says."""
    path = None
    if point is not None:
        path = str(point.path)
        overwrite_checkpoints(parts.trainer.checkpoint_callbacks)
    parts.trainer.fit(parts.task, datamodule=parts.data, ckpt_path=path, weights_only=True)


def has_test(parts: Parts) -> bool:
    """Whether there is a test: a task and a data module of the user's may do without."""
    return is_overridden("test_step", parts.task) and is_overridden("test_dataloader", parts.data)


def evaluate(parts: Parts, saving: SafeSaving, *, test: bool) -> tuple[dict[str, Any], dict[str, float]]:
    """Test the best weights, or the last where none were kept, if they are worth it.

    Returns the best checkpoint with its epoch (from 0), and the validation and test metrics of those weights.
    """
    path = saving.kept(parts.checkpoint.best_model_path) if parts.checkpoint else ""
    metrics = {name: float(value) for name, value in parts.trainer.callback_metrics.items()}
    epoch = None
    if path:
        content = load(Path(path), mmap=True)
        epoch, metrics = content["epoch"], content["metrics"]
    if test and has_test(parts):
        parts.trainer.test(
            parts.task, datamodule=parts.data, ckpt_path=path or None, weights_only=True, verbose=False
        )
    tested = {
        name: float(v) for name, v in parts.trainer.callback_metrics.items() if name.startswith("test/")
    }
    best = {"best_epoch": epoch, "best_checkpoint": path or None}
    return best, {name: value for name, value in metrics.items() if name.startswith("val/")} | tested
