"""The trace of a run, which `regente rerun --verify` compares with a second run."""

import json
import os
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.jobs.job import Job
from regente.jobs.result import split_of
from regente.jobs.trace_file import TRACE, Line, read_trace
from regente.tracking.journal import Journal
from regente.training.grouped_steps import steps_of

STEPS = [3, *(factor * 10**power for power in range(9) for factor in (1, 2, 5))]
FREE, SHARE = (
    0.05,
    0.002,
)  # hashes of the weights may take so many seconds, and this share of the training time


class Trace(Callback):
    """Writes `trace.jsonl`: the exact losses of a few steps with a hash of the weights after them, and one of each epoch.

    A step is 1, 2, 3, 5, 10, 20, 50, ... or, where a call takes several steps, the last of the call that it is in.
    The host waits for the device only at these steps. A resumed run continues the file after its step.
    """

    def __init__(self, file: Path, steps: Iterable[int] = STEPS) -> None:
        self.file, self.steps = file, sorted(steps)
        self.step, self.due = 0, 0  # the last step seen, and the index in `steps` of the next one to write
        self.spent, self.begun = 0.0, 0.0  # seconds for hashes, and when training began

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step, self.begun = trainer.global_step, time.perf_counter()
        self.due = bisect_right(self.steps, self.step)
        if trainer.is_global_zero:
            kept = [line for line in read_trace(self.file) if line["step"] <= self.step] if self.step else []
            self.file.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (
            self.due == len(self.steps)
            or (step := trainer.global_step) < self.steps[self.due]
            or step == self.step
        ):
            return
        self.step, self.due = step, bisect_right(self.steps, step)
        grouped = steps_of(pl_module) is not None
        if trainer.is_global_zero and outputs and ("loss" in outputs or grouped):
            losses = outputs["losses"] if grouped else outputs["loss"].detach().view(1)
            self.keep({"step": step, "losses": losses.cpu().double().tolist(), **self._weights(pl_module)})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            values = {k: float(v) for k, v in trainer.callback_metrics.items() if split_of(k)[0] == "val"}
            line = {"step": trainer.global_step, "epoch": trainer.current_epoch + 1, "metrics": values}
            self.keep(line | self._weights(pl_module))

    def keep(self, line: Line) -> None:
        """Append a line with one system call, so that a killed process damages at most the last one."""
        file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)

    def _weights(self, module: LightningModule) -> dict[str, str]:
        """The hash of the weights, unless the hashes before took too long."""
        begun = time.perf_counter()
        if self.spent > FREE + SHARE * (begun - self.begun):
            return {}
        found = weights_hash(module)
        self.spent += time.perf_counter() - begun
        return {"weights": found}


class RunTrace(Trace):
    """The trace of a job, which becomes an artifact of its run at the end."""

    def __init__(self, job: Job, journal: Journal) -> None:
        super().__init__(job.path / TRACE)
        self.journal = journal

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hand_over(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hand_over(trainer)

    def _hand_over(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.file.is_file():
            self.journal.artifact(self.file, "")


class Enough(Exception):  # noqa: N818 - it is no error
    """Ends a replay where the recorded trace ends."""


class Replay(Trace):
    """Takes a trace at the steps of a recorded one, into `lines`; the training ends after the last of them."""

    def __init__(self, recorded: Sequence[Line]) -> None:
        super().__init__(Path(os.devnull), {line["step"] for line in recorded if "losses" in line})
        self.lines: list[Line] = []
        self.last = recorded[-1]["step"], recorded[-1].get("epoch")
        self.group = max((len(line["losses"]) for line in recorded if "losses" in line), default=1)

    def keep(self, line: Line) -> None:
        self.lines.append(line)
        if (line["step"], line.get("epoch")) == self.last or line["step"] > self.last[0]:
            raise Enough

    def _weights(self, module: LightningModule) -> dict[str, str]:
        return {"weights": weights_hash(module)}


def weights_hash(module: torch.nn.Module) -> str:
    """16 hexadecimal digits over all parameters and buffers: name, dtype, shape and bits; of a shard, its own."""
    total = sha256()
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        local = getattr(tensor, "to_local", lambda tensor=tensor: tensor)().detach()
        total.update(f"{name} {local.dtype} {tuple(local.shape)}\n".encode())
        total.update(local.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()[:16]
