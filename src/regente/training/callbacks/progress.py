"""The progress line of a training."""

import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from regente.data.core.batches import Batches
from regente.data.protocols import SupportsNotes
from regente.jobs import console
from regente.jobs.result import split_of
from regente.training.callbacks.training_loss import TrainingLoss


def batch_size(batch: Any) -> int:
    """The number of samples in a batch, by the first tensor in it; 0 if it has none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 0
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((size for each in parts if (size := batch_size(each))), 0)


class ProgressLine(Callback):
    """One live line for the whole training, drawn ten times a second; nothing where stdout is not a terminal.

    It prints the `notes` of the data module first. It also measures samples and seconds of the training, without
    validations.
    """

    def __init__(self, console: Console, losses: TrainingLoss) -> None:
        self.console, self.losses = console, losses
        self.samples, self.seconds = 0, 0.0
        self.since: float | None = None  # by time.perf_counter(), while the clock runs
        self.line: Progress | None = None
        self.drawn = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        for note in data.notes if isinstance(data, SupportsNotes) else ():
            console.note(self.console, note)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since = time.perf_counter()  # a run that is resumed in an epoch has no start of that epoch
        if not self.console.is_terminal or not trainer.is_global_zero:
            return
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self.line = Progress(
            *columns,
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        total, loader = trainer.estimated_stepping_batches, trainer.train_dataloader
        if isinstance(loader, Batches):  # Lightning counted its groups of batches
            total *= loader.steps / len(loader)
        self.task = self.line.add_task("training", total=total if total != float("inf") else None, metrics="")
        self.line.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.samples += batch_size(batch)
        now = time.perf_counter()
        if self.line is not None and now - self.drawn > 0.1:
            self.drawn = now
            self._draw(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_clock()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_clock()
        for logger in trainer.loggers if self.seconds > 0 else ():
            speed = self.samples * trainer.world_size / self.seconds
            logger.log_metrics({"train/samples_per_second": speed}, step=trainer.global_step)
        self.since = time.perf_counter()

    def _stop_clock(self) -> None:
        if self.since is not None:
            self.seconds += time.perf_counter() - self.since
            self.since = None

    def _draw(self, trainer: Trainer) -> None:
        assert self.line is not None
        shown = {
            "loss": self.losses.latest,
            **{k: float(v) for k, v in trainer.callback_metrics.items() if split_of(k)[0] == "val"},
        }
        text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        epoch = f"epoch {trainer.current_epoch + 1}" + (
            f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        )
        self.line.update(self.task, completed=trainer.global_step, description=epoch, metrics=text)
        self.line.refresh()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop_clock()
        self._close()

    def _close(self) -> None:
        if self.line is not None:
            self.line.stop()
            self.line = None
