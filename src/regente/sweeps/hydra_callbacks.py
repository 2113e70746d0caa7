"""Calls Hydra's own callbacks (`hydra.callbacks`) for a sweep that Hydra does not run itself."""

import copy
import warnings
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict

from regente.config.compose import Composed


class HydraCallbacks:
    """`on_multirun_start`, `on_job_start`, `on_job_end` and `on_multirun_end`, in the driver's process."""

    def __init__(self, base: Composed) -> None:
        self.experiment = base.experiment
        self.callbacks = [instantiate(node) for node in (base.hydra.callbacks or {}).values()]
        self.config = _with_hydra(base) if self.callbacks else None
        self.jobs: dict[str, Any] = {}

    def started(self) -> None:
        """The sweep starts."""
        self._call("on_multirun_start", config=self.config, config_name=self.experiment)

    def job_started(self, name: str, composed: Composed) -> None:
        """A job starts."""
        if self.callbacks:
            self.jobs[name] = _with_hydra(composed)
            self._call("on_job_start", config=self.jobs[name], task_function=_task_function)

    def job_ended(self, name: str, code: int, value: float | None) -> None:
        """A job has ended."""
        if self.callbacks:
            config = self.jobs.pop(name)
            status = JobStatus.FAILED if code else JobStatus.COMPLETED
            result = JobReturn(cfg=config, overrides=list(config.hydra.overrides.task), status=status)
            result.return_value = RuntimeError(f"exit code {code}") if code else value
            self._call("on_job_end", config=config, job_return=result)

    def ended(self) -> None:
        """The sweep has ended."""
        self._call("on_multirun_end", config=self.config)

    def _call(self, method: str, **arguments: Any) -> None:
        """Call the method of each callback, the last one first at an end; an error is a warning, as in Hydra."""
        for callback in reversed(self.callbacks) if method.endswith("_end") else self.callbacks:
            try:
                getattr(callback, method)(**arguments)
            except Exception as error:
                warnings.warn(
                    f"Callback {type(callback).__name__}.{method} raised {type(error).__name__}: {error}",
                    stacklevel=2,
                )


def _task_function(config: Any) -> None:
    """Takes the place of Hydra's task function: a job runs in a process of its own."""


def _with_hydra(composed: Composed) -> Any:
    config = copy.deepcopy(composed.node)
    with open_dict(config):
        config.hydra = copy.deepcopy(composed.hydra)
        OmegaConf.set_readonly(config.hydra, None)
        config.hydra.overrides.task = list(composed.overrides)
    return config
