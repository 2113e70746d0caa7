"""What is done about a training that diverges or runs out of memory, where the config wants something done."""

import gc
import json
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regente.errors import ConfigError, DivergedError, MachineError, Problem
from regente.jobs import checkpoint_files
from regente.jobs.job import Job, read_json, write_json
from regente.training.assemble import Parts
from regente.training.ranks.consensus import of_rank_0

ROLLBACKS = 5  # in a row from the same state
HALVED = "halved.json"  # in the job directory: how often the batch was


class Recovery:
    """Answers to what ended a training; `rate` is what the next attempt's learning rates are multiplied by."""

    def __init__(self, job: Job, config: dict[str, Any]) -> None:
        self.job, self.config, self.rate = job, config, 1.0
        self.rollbacks, self.place = 0, (-1, -1)  # of the state that was gone back to
        self.halved = int(of_rank_0("halved", str(read_json(job.path / HALVED).get("times", 0))))
        for _ in range(self.halved):
            self._halve_batch()

    def answer(self, error: DivergedError | torch.OutOfMemoryError, parts: Parts) -> str:
        """Change what the next attempt needs changed, and say so.

        Raises:
            DivergedError, torch.OutOfMemoryError: the one that came, where nothing is to be done about it.
        """
        trainer = self.config["trainer"]
        if isinstance(error, DivergedError) and trainer.get("on_nan") == "rollback":
            return self._roll_back(error)
        if isinstance(error, torch.OutOfMemoryError) and str(trainer.get("on_oom")).startswith("halve"):
            return self._halve(error, parts)
        raise error

    def _roll_back(self, error: DivergedError) -> str:
        state = next(iter(checkpoint_files.points(self.job.resume_states)), None)
        # as rank 0 sees it, which has written all that it had to
        place = tuple(
            json.loads(of_rank_0("place", json.dumps(checkpoint_files.place(state) if state else (0, 0))))
        )
        again = place == self.place
        self.place, self.rollbacks = place, self.rollbacks + 1 if again else 1
        if self.rollbacks > ROLLBACKS:
            raise error
        self.rate = self.rate / 2 if again else 0.5
        why = str(error).partition(";")[0]
        return f"{why}; back to step {place[0]:,}, on with {self.rate:g} of the learning rate"

    def _halve(self, error: torch.OutOfMemoryError, parts: Parts) -> str:
        size, accumulated = (
            self.config["data"].get("batch_size"),
            self.config["trainer"]["accumulate_grad_batches"],
        )
        if (
            parts.trainer.global_step
            or checkpoint_files.points(self.job.resume_states)
            or not size
            or size % 2
        ):
            raise error  # in the middle of an epoch the position is counted in batches
        if self.config["trainer"]["on_oom"] == "halve" and has_batchnorm(parts.task):
            what = (
                "the model has BatchNorm, whose means would be of half the batch; "
                "trainer.on_oom=halve_batchnorm takes them, a smaller data.batch_size says so too"
            )
            raise MachineError(f"trainer.on_oom=halve: out of memory, and {what}") from error
        self.halved += 1
        write_json(self.job.path / HALVED, {"times": self.halved})
        self._halve_batch()
        return f"out of memory: data.batch_size={size // 2} trainer.accumulate_grad_batches={2 * accumulated}"

    def _halve_batch(self) -> None:
        data, trainer = self.config["data"], self.config["trainer"]
        if data["batch_size"] % 2:
            raise ConfigError(
                [Problem(f"data.batch_size={data['batch_size']}", "is odd and was to be halved")]
            )
        data["batch_size"] //= 2
        trainer["accumulate_grad_batches"] *= 2


def has_batchnorm(module: nn.Module) -> bool:
    """Whether a layer's output for a sample depends on the others of its batch."""
    return any(isinstance(each, _BatchNorm) for each in module.modules())


def release() -> None:
    """Give the device back what a dropped training held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
