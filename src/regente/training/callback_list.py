"""All callbacks of a training, in the order in which Lightning calls them."""

from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ProgressBar

from regente.jobs import console
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


def configured(config: dict[str, Any], job: Job) -> tuple[list[ResumeStates], list[Callback]]:
    """The callbacks of the config, those that save states to resume from apart; without progress bars."""
    found = [make_callback(name, node, job) for name, node in config["callbacks"].items() if node]
    found = [each for each in found if not isinstance(each, ProgressBar)]
    resume = [each for each in found if isinstance(each, ResumeStates)]
    return resume, [each for each in found if each not in resume]


class Callbacks:
    """The callbacks of a run. Those that hold a signal, a figure or a trial stay when its training is built again."""

    def __init__(self, current: Session) -> None:
        self.current = current
        config, journal, trainer = current.config, current.recorder.journal, current.config["trainer"]
        self.seeding = StepSeeding(config["seed"])
        self.stop = StopOnSignal(save_state)
        self.loss = TrainingLoss(skipping=trainer.get("on_nan") == "skip_step")
        self.metrics = CheckpointMetrics()
        self.progress = ProgressLine(current.out, self.loss)
        self.pruning: Pruning | None = pruning(journal)
        calls = trainer.get("profile_calls")
        self.profile = StepProfile(current.job.path / "profile", journal, calls) if calls else None

    def ordered(self, change: ChangedSettings) -> list[Callback]:
        """Those of the config (a `null` is off), made anew, and Regente's own, in the order of their calls."""
        job, config, journal = self.current.job, self.current.config, self.current.recorder.journal
        resume, others = configured(config, job)

        def note(text: str) -> None:
            console.note(self.current.out, text)

        for name, node in config["callbacks"].items():
            if node and str(node["_target_"]).endswith("ProgressBar"):
                note(f"callbacks.{name} is left out: Regente draws its own line")
        for each in resume:
            each.warn = note
        ordered = [
            change,
            self.seeding,
            *resume,  # before others do what they do at the start of a batch
            self.stop,
            *others,
            RunDescription(job, journal, self.current.recorder.redact.text),
            RunTrace(job, journal),
            self.loss,
            self.metrics,
            SamplePredictions(job.path),
            SampleTexts(job, journal),
            self.progress,
            self.pruning,
            RankSync(note) if world_size(config["trainer"]) > 1 else None,
            self.profile,
            SkipSteps() if config["trainer"].get("on_nan") == "skip_step" else None,
        ]
        return [each for each in ordered if each is not None]
