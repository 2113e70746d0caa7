"""Calls Hydra's own callbacks (`hydra.callbacks`) for a sweep that Hydra does not run itself."""

import copy
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf, open_dict

from regente.config.compose import Composed


class HydraCallbacks:
    """`on_multirun_start`, `on_job_start`, `on_job_end` and `on_multirun_end`, in the driver's process."""

    def __init__(self, base: Composed) -> None:
        self.experiment = base.experiment
        self.config = _with_hydra(base) if base.hydra.callbacks else None
        self.callbacks = Callbacks(self.config)
        self.jobs: dict[str, Any] = {}

    def started(self) -> None:
        """The sweep starts."""
        if self.config is not None:
            self.callbacks.on_multirun_start(config=self.config, config_name=self.experiment)

    def job_started(self, name: str, composed: Composed) -> None:
        """A job starts."""
        if self.config is not None:
            self.jobs[name] = _with_hydra(composed)
            self.callbacks.on_job_start(config=self.jobs[name], task_function=_worker)

    def job_ended(self, name: str, code: int, value: float | None) -> None:
        """A job has ended."""
        if self.config is not None:
            config = self.jobs.pop(name)
            status = JobStatus.FAILED if code else JobStatus.COMPLETED
            answer = JobReturn(cfg=config, overrides=list(config.hydra.overrides.task), status=status)
            answer.return_value = RuntimeError(f"exit code {code}") if code else value
            self.callbacks.on_job_end(config=config, job_return=answer)

    def ended(self) -> None:
        """The sweep has ended."""
        if self.config is not None:
            self.callbacks.on_multirun_end(config=self.config)


def _worker(config: Any) -> None:
    """The task function that callbacks get; jobs run in processes of their own, so it does nothing."""


def _with_hydra(composed: Composed) -> Any:
    config = copy.deepcopy(composed.node)
    with open_dict(config):
        config.hydra = copy.deepcopy(composed.hydra)
        OmegaConf.set_readonly(config.hydra, None)
        config.hydra.overrides.task = list(composed.overrides)
    return config
