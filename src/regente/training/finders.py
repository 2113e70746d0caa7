"""Before stage 4 of a run: find the learning rate and the batch size, if the trainer's settings ask for it.

Each finder trains parts of its own and drops them. The run is then built from the config with the found values in it: it
is the same run as with these values given by hand.
"""

import math
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error

from regente.config.compose import recompose
from regente.config.interpolation import resolve
from regente.errors import ConfigError, Problem
from regente.jobs import console
from regente.jobs.hardware import fit_trainer, world_size
from regente.jobs.job import FOUND, Job, read_json, write_json
from regente.tracking.journal import Journal
from regente.training.assemble import assemble, make_trainer
from regente.training.callbacks.step_seeding import StepSeeding
from regente.training.session import Session

SETTINGS = {"find_batch_size": "data.batch_size", "find_lr": "optimizer.lr"}  # in the order of finding
RATES = (1e-6, 10.0)  # of learning, from the first step to the last
STEPS = 100  # of the optimizer, 14 for each power of ten
BLUR = 3.0  # steps: the standard deviation of the kernel that smooths the losses
GIVE_UP = 4.0  # times the smallest loss
LEAST_STEPS = 10  # of an epoch: no batch is larger than that
TRIAL = 4  # batches, of which the first is not timed
GAIN = 1.05  # times the samples per second: less does not count as faster
MEMORY = 0.8  # of the free main memory: the limit for a batch
Found = dict[str, Any]


def find_settings(current: Session) -> None:
    """Put into the config what `trainer.find_lr` and `trainer.find_batch_size` find; a resumed job finds nothing again.

    Raises:
        ConfigError: for several ranks; each would find another value.
    """
    job, journal, out = current.job, current.recorder.journal, current.out
    trainer = current.config["trainer"]
    wanted = [key for key in ("find_batch_size", "find_lr") if trainer.get(key)]
    if not wanted:
        return
    if world_size(trainer) > 1:
        what = "takes one device; find it with trainer.devices=1, and give it to the run of several"
        raise ConfigError([Problem(f"trainer.{wanted[0]}", what)])
    found = found_before(job)
    for (key, setting), finder in zip(SETTINGS.items(), (find_batch_size, find_lr), strict=True):
        if key in wanted and setting not in found:
            if out.is_terminal:
                console.note(out, f"trainer.{key}: trying values ...")
            value, line = finder(job, with_found(job, found), journal)
            console.note(out, f"trainer.{key}: {line}")
            found[setting] = value
            journal.write("params", values={f"found.{setting}": value})
    write_json(job.path / FOUND, found)
    journal.artifact(job.path / FOUND, "")
    current.config = with_found(job, found)


def found_before(job: Job) -> Found:
    """The settings that an earlier attempt of the job has found; other content of the file is ignored."""
    values = read_json(job.path / FOUND)
    return {key: values[key] for key in SETTINGS.values() if type(values.get(key)) in (int, float)}


def with_found(job: Job, found: Found) -> dict[str, Any]:
    """The resolved config of a job with the found settings in it."""
    return resolve(recompose(job.config, [f"{setting}={value}" for setting, value in found.items()]))


def _for_trial(config: dict[str, Any], steps: int) -> dict[str, Any]:
    """The config of a training that is dropped: `steps` optimizer steps, without validation and callbacks."""
    trainer, _ = fit_trainer(config["trainer"])
    trainer |= {
        "max_epochs": -1,
        "max_steps": steps,
        "max_minutes": None,
        "max_time": None,
        "min_epochs": None,
    }
    trainer |= {"limit_val_batches": 0, "num_sanity_val_steps": 0, "detect_anomaly": False, "profiler": None}
    return {**config, "trainer": trainer, "callbacks": {}, "scheduler": {"_target_": None}}


class RangeTest(Callback):
    """Raises the learning rate with each optimizer step from one end of RATES to the other (Smith, 2017).

    Lightning's finder divides its running mean by the wrong power, which halves the first losses, and takes the slope
    of a mean that trails ten steps and more behind.
    """

    def __init__(self, given: float | None = None) -> None:
        self.given = given  # the learning rate of the optimizer, whose parameter groups may have others
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.least = math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        self.shares = [group["lr"] / (self.given or groups[0]["lr"] or 1.0) for group in groups]
        self.waiting: list[torch.Tensor] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        low, high = RATES
        self.rate = low * (high / low) ** (trainer.global_step / (STEPS - 1))
        self.before = trainer.global_step
        for group, share in zip(trainer.optimizers[0].param_groups, self.shares, strict=True):
            group["lr"] = self.rate * share

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.waiting.append(outputs["loss"].detach())
        if trainer.global_step == self.before:  # the gradient is still being accumulated
            return
        loss = float(torch.stack(self.waiting).mean())
        self.waiting = []
        if math.isfinite(loss):
            self.rates.append(self.rate)
            self.losses.append(loss)
            self.least = min(self.least, loss)
        if not math.isfinite(loss) or loss > GIVE_UP * abs(self.least) + 1e-3:
            trainer.should_stop = True


def find_lr(job: Job, config: dict[str, Any], journal: Journal) -> tuple[float, str]:
    """The learning rate at which the loss falls fastest, to two digits, and a line for the user.

    The curve goes to `learning_rates.json` in the job directory: a rate and a loss for each step.
    """
    grouped = config["optimizer"].get("groups") or config["optimizer"].get("layer_decay")
    test = RangeTest(float(config["optimizer"]["lr"]) if grouped else None)
    parts = assemble(_for_trial(config, STEPS), job, [StepSeeding(config["seed"]), test])
    parts.trainer.fit(parts.task, datamodule=parts.data)
    given = float(config["optimizer"]["lr"])
    rate = steepest(test.rates, test.losses)
    write_json(
        job.path / "learning_rates.json",
        {"lr": test.rates, "loss": test.losses, "found": rate, "given": given},
    )
    journal.artifact(job.path / "learning_rates.json", "finders")
    if rate is None:
        return (
            given,
            f"the loss falls at no rate from {RATES[0]:g} to {RATES[1]:g}; optimizer.lr={given:g} stays",
        )
    return rate, f"optimizer.lr={rate:g}, where the loss falls fastest (given was {given:g})"


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate of the steepest fall of the smoothed losses, before they are least; none where they do not fall."""
    if len(losses) < 10:
        return None
    smooth = smoothed(np.array(losses))
    end = int(smooth.argmin())
    slope = np.gradient(smooth, np.log(rates))[: end + 1]
    noise = (np.array(losses) - smooth)[:20].std()  # before the model has learned anything
    if smooth[0] - smooth[end] < 3 * noise:
        return None
    return float(f"{rates[int(slope.argmin())]:.1e}")


def smoothed(values: np.ndarray) -> np.ndarray:
    """A running mean with a Gaussian kernel, which shifts the curve to neither side."""
    reach = int(3 * BLUR)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), bell / bell.sum(), mode="valid")


@dataclass
class Clock(Callback):
    """Seconds of each batch."""

    seconds: list[float] = field(default_factory=list)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.begun = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(self._now() - self.begun)

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def find_batch_size(job: Job, config: dict[str, Any], journal: Journal) -> tuple[int, str]:
    """The least batch size, a power of two, that no larger one beats in samples per second, and a line for the user.

    It stops doubling where the memory ends, or an epoch would have less than LEAST_STEPS steps. The trials go to
    `batch_sizes.json` in the job directory. (Lightning's finder takes the largest that fits; on a CPU it always ends at 8192.)
    """
    trial = _for_trial({**config, "trainer": {**config["trainer"], "accumulate_grad_batches": 1}}, TRIAL)
    parts = assemble(trial, job, [StepSeeding(config["seed"]), Clock()])
    data: Any = parts.data
    data.prepare_data()
    data.setup("fit")
    given = int(config["data"]["batch_size"])
    data.batch_size = 1
    most = len(data.train_dataloader()) // LEAST_STEPS
    speeds: dict[int, float] = {}
    size, why, base, free = 8, "", peak_memory(), psutil.virtual_memory().available
    while not why:
        data.batch_size, clock = size, Clock()
        trainer = make_trainer(trial, job, [clock], None)
        try:
            trainer.fit(parts.task, datamodule=data)
        except RuntimeError as error:
            if not is_oom_error(error):
                raise
            why = f"{size} does not fit into memory"
            break
        finally:
            parts.task.zero_grad(set_to_none=True)
            garbage_collection_cuda()
        speeds[size] = size / min(clock.seconds[1:])
        why = _enough(speeds, size, most, 2 * (peak_memory() - base) / free)
        size *= 2
    best = fastest(speeds) if speeds else given
    write_json(job.path / "batch_sizes.json", {"samples_per_second": speeds, "found": best, "given": given})
    journal.artifact(job.path / "batch_sizes.json", "finders")
    speed = f" ({speeds[best]:,.0f} samples/s)" if best in speeds else ""
    return best, f"data.batch_size={best}{speed}; {why} (given was {given})"


def _enough(speeds: dict[int, float], size: int, most: int, share: float) -> str:
    """Why the next size is not tried, if it is not; `share`: of the free memory that it would take."""
    if 2 * size > most:
        return f"with {2 * size} an epoch would have fewer than {LEAST_STEPS} steps"
    if share > MEMORY:
        return f"{2 * size} would not fit into memory"
    if size >= 4 * (best := fastest(speeds)):
        return f"{2 * best} and {4 * best} are no faster"
    return ""


def fastest(speeds: dict[int, float]) -> int:
    """The smallest size whose speed is within GAIN of the best."""
    return min(size for size, speed in speeds.items() if speed * GAIN >= max(speeds.values()))


def peak_memory() -> int:
    """Peak main memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
