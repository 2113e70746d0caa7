"""All callbacks of a training, in the order in which Lightning calls them."""

from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Callback

from regente.jobs.hardware import world_size
from regente.jobs.job import Job
from regente.training.assemble import make_callback
from regente.training.callbacks.changed_settings import ChangedSettings
from regente.training.callbacks.checkpoint_metrics import CheckpointMetrics
from regente.training.callbacks.progress import ProgressLine
from regente.training.callbacks.pruning import Pruning, pruning
from regente.training.callbacks.rank_sync import RankSync
from regente.training.callbacks.resume_states import ResumeStates, save_state
from regente.training.callbacks.run_description import RunDescription
from regente.training.callbacks.sample_predictions import SamplePredictions
from regente.training.callbacks.sample_texts import SampleTexts
from regente.training.callbacks.skip_steps import SkipSteps
from regente.training.callbacks.step_profile import StepProfile
from regente.training.callbacks.step_seeding import StepSeeding
from regente.training.callbacks.stop_on_signal import StopOnSignal
from regente.training.callbacks.trace import RunTrace
from regente.training.callbacks.training_loss import TrainingLoss
from regente.training.session import Session


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a training; some of them are asked for figures at its end."""

    progress: ProgressLine
    pruning: Pruning | None
    ordered: list[Callback]


def configured(config: dict[str, Any], job: Job) -> tuple[list[ResumeStates], list[Callback]]:
    """The callbacks of the config, those that save states to resume from apart."""
    found = [make_callback(name, node, job) for name, node in config["callbacks"].items() if node]
    resume = [each for each in found if isinstance(each, ResumeStates)]
    return resume, [each for each in found if each not in resume]


def list_callbacks(current: Session, change: ChangedSettings) -> Callbacks:
    """Those of the config (a `null` is off) and Regente's own."""
    job, config, journal = current.job, current.config, current.recorder.journal
    trainer: dict[str, Any] = config["trainer"]
    resume, others = configured(config, job)
    for each in resume:
        each.attempt = current.recorder.attempt
    loss = TrainingLoss(skipping=trainer.get("on_nan") == "skip_step")
    progress, trial = ProgressLine(current.out, loss), pruning(journal)
    ordered = [
        StepSeeding(config["seed"]),
        *resume,  # before others do what they do at the start of a batch
        StopOnSignal(save_state),
        *others,
        RunDescription(job, journal),
        RunTrace(job, journal),
        loss,
        CheckpointMetrics(),
        SamplePredictions(job.path),
        SampleTexts(job, journal),
        progress,
        trial,
        RankSync() if world_size(trainer) > 1 else None,
        StepProfile(job.path / "profile", journal, calls)
        if (calls := trainer.get("profile_calls"))
        else None,
        SkipSteps() if trainer.get("on_nan") == "skip_step" else None,
        change,
    ]
    return Callbacks(progress, trial, [each for each in ordered if each is not None])
