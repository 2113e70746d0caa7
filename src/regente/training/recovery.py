"""How a training that diverged or ran out of memory is started again, where the config asks for it."""

import gc
from typing import Any

import torch
from torch import nn

from regente.errors import ConfigError, DivergedError, MachineError, Problem
from regente.jobs import checkpoint_files
from regente.jobs.job import Job, read_json, write_json
from regente.training.assemble import Parts
from regente.training.ranks.consensus import of_rank_0

MAX_ROLLBACKS = 5  # in a row to the same state
HALVED = "halved.json"  # in the job directory: how often the batch size was halved
BATCHNORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Recovery:
    """Changes the config of a job for its next try; `rate` multiplies the learning rates of that try."""

    def __init__(self, job: Job, config: dict[str, Any]) -> None:
        self.job, self.config, self.rate = job, config, 1.0
        self.rollbacks, self.rolled_back_to = 0, -1  # how often in a row, and the step of the state
        self.halved = int(of_rank_0("halved", str(read_json(job.path / HALVED).get("times", 0))))
        for _ in range(self.halved):
            self._halve_batch()

    def handle(self, error: DivergedError | torch.OutOfMemoryError, parts: Parts) -> str:
        """Change the config for the next try, and return a note about it.

        Raises:
            DivergedError, torch.OutOfMemoryError: `error` itself, where the config asks for no other try.
        """
        trainer = self.config["trainer"]
        if isinstance(error, DivergedError) and trainer.get("on_nan") == "rollback":
            return self._roll_back(error)
        if isinstance(error, torch.OutOfMemoryError) and str(trainer.get("on_oom")).startswith("halve"):
            return self._halve(error, parts)
        raise error

    def _roll_back(self, error: DivergedError) -> str:
        states = checkpoint_files.resume_states(self.job.resume_states)
        newest = checkpoint_files.step_and_stage(states[0])[0] if states else 0
        step = int(of_rank_0("rollback", str(newest)))  # rank 0 writes the states
        again = step == self.rolled_back_to
        self.rolled_back_to, self.rollbacks = step, self.rollbacks + 1 if again else 1
        if self.rollbacks > MAX_ROLLBACKS:
            raise error
        self.rate = self.rate / 2 if again else 0.5
        reason = str(error).partition(";")[0]
        return f"{reason}; goes back to step {step:,}, with {self.rate:g} of the learning rate"

    def _halve(self, error: torch.OutOfMemoryError, parts: Parts) -> str:
        size, accumulated = self.config["data"].get("batch_size"), parts.trainer.accumulate_grad_batches
        started = parts.trainer.global_step or checkpoint_files.resume_states(self.job.resume_states)
        if started or not size or size % 2:  # in an epoch the position is counted in batches
            raise error
        if self.config["trainer"]["on_oom"] == "halve" and has_batchnorm(parts.task):
            what = (
                "the model has BatchNorm, which would take its means over half the batch; "
                "use trainer.on_oom=halve_batchnorm to allow that, or a smaller data.batch_size"
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
                [Problem(f"data.batch_size={data['batch_size']}", "is odd, it cannot be halved")]
            )
        data["batch_size"] //= 2
        trainer["accumulate_grad_batches"] *= 2


def has_batchnorm(module: nn.Module) -> bool:
    """Whether the output for a sample depends on the other samples of its batch."""
    return any(isinstance(each, BATCHNORM) for each in module.modules())


def release() -> None:
    """Free the device memory of a training that was given up."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
