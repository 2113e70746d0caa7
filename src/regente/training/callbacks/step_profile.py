"""A profile of some calls of `training_step`."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from regente.tracking.journal import Journal

WARMUP_CALLS = 1  # before the first recorded one: they compile and allocate
ROWS = 40


class StepProfile(Callback):
    """Records some calls of `training_step` on rank 0: a trace for ui.perfetto.dev or chrome://tracing, and a table.

    A call takes one batch, or one optimizer step for each batch of a group: see `trainer.steps_per_call`. The recording
    ends after `calls` calls, or earlier at a validation. (Lightning's own profiler restarts with each validation, so that
    its table shows only the validation.)
    """

    def __init__(self, folder: Path, journal: Journal, calls: int) -> None:
        self.folder, self.journal, self.calls = folder, journal, calls
        self.seen = 0
        self.running: profile | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        only_one = trainer.max_epochs == 1 and trainer.num_training_batches == 1
        self.first = 0 if only_one else WARMUP_CALLS

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.seen == self.first and trainer.is_global_zero:
            kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]
            self.running = profile(activities=kinds, record_shapes=True, acc_events=True)
            self.running.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += 1
        if self.seen == self.first + self.calls:
            self._keep()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._keep()

    def _keep(self) -> None:
        """Stop the profiler, if it runs, and write its result."""
        if self.running is None:
            return
        self.running.stop()
        self.folder.mkdir(exist_ok=True)
        self.running.export_chrome_trace(str(self.folder / "trace.json"))
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self.running.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=60)
        (self.folder / "operators.txt").write_text(table, encoding="utf-8")
        self.journal.artifact(self.folder, "profile")
        self.running = None
