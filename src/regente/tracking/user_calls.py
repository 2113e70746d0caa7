"""What a user's code logs by `mlflow.*` lands in the run of its training, by the journal: a plugin of MLflow.

While a training is recorded, MLFLOW_TRACKING_URI has an address of its own, for which MLflow finds `JournalStore` by the
entry point `mlflow.tracking_store` in pyproject.toml. So such a call never waits for the store, and makes no run.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.config.tracking_uri import absolute_uri
from regente.jobs.job import ARTIFACTS
from regente.tracking.mlflow_internals import tracking_store
from regente.tracking.shipping_state import read_state

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Metric, Param, Run, RunInfo, RunTag

TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
WAIT = 10.0  # seconds for the shipper to make the run
_calls: "list[UserCalls]" = []  # of the recordings of this process, the running one last


class UserCalls:
    """The calls of one recording, from `UserCalls(...)` to `end`."""

    def __init__(self, recorder: Any) -> None:
        self.recorder, self.job = recorder, recorder.job
        self.uri = absolute_uri(recorder.uri, Path(self.job.project)) if recorder.uri else ""
        self.address = f"regente://{self.job.path}"
        self.before = {key: os.environ.get(key) for key in (TRACKING, REGISTRY)}
        os.environ[TRACKING] = self.address
        if self.uri:  # else MLflow would look for models at the address above
            os.environ.setdefault(REGISTRY, self.uri)
        self.set_before = self._switch(self.address)  # by a script that calls `regente.train`
        _calls.append(self)

    def _switch(self, address: str) -> str:
        """Use an address though MLflow was told another by a call; returns that."""
        mlflow = sys.modules.get("mlflow")
        told = mlflow.get_tracking_uri() if mlflow and hasattr(mlflow, "get_tracking_uri") else address
        if mlflow and told != address:
            mlflow.set_tracking_uri(address)
        return "" if told == address else told

    @cached_property
    def logger(self) -> Any:
        from regente.tracking.lightning_logger import JournalLogger

        return JournalLogger(self.recorder.journal, self.job, self.recorder.redact)

    @cached_property
    def ids(self) -> tuple[str, str]:
        """Run and experiment in MLflow; made-up ones where the store does not answer."""
        end = time.monotonic() + WAIT
        while self.uri and time.monotonic() < end and not self.recorder.problem:
            state = read_state(self.job.path)
            if "run_id" in state:
                return state["run_id"], state["experiment_id"]
            if state["problem"] or state["refused"]:
                break
            time.sleep(0.05)
        return self.logger.run_id, "0"

    def end(self) -> str:
        """Give MLflow back; returns the other address that the user's code has chosen, if it has."""
        other = ""
        if mlflow := sys.modules.get("mlflow"):
            with suppress(Exception):  # of a store of the user's
                mlflow.end_run()
            chosen = mlflow.get_tracking_uri() if hasattr(mlflow, "get_tracking_uri") else self.address
            other = "" if chosen == self.address else chosen  # which stays, as in a program without Regente
            if self.set_before and not other:
                mlflow.set_tracking_uri(self.set_before)
        _calls.remove(self)
        for key, value in self.before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        return other


def _current() -> UserCalls:
    """The running recording; raises MlflowException in another process, such as a worker of a DataLoader."""
    if not _calls:
        from mlflow.exceptions import MlflowException

        raise MlflowException(
            "no training is recorded in this process; call mlflow in the process that trains"
        )
    return _calls[-1]


class JournalStore:
    """A tracking store of MLflow: what is about the run goes to the journal, all else to the real store."""

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        """MLflow makes and keeps one for each address."""

    def __getattr__(self, name: str) -> Any:
        if uri := _current().uri:
            return getattr(tracking_store(uri), name)
        return lambda *args, **kwargs: None  # tracking=none

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Any, run_name: str
    ) -> "Run":
        """The run of the training: a call makes no other."""
        return self._run()

    def get_run(self, run_id: str) -> "Run":
        """The run of the training, or another one of the real store."""
        calls = _current()
        if run_id == calls.ids[0] or not calls.uri:
            return self._run()
        found: Run = tracking_store(calls.uri).get_run(run_id)
        return found

    def update_run_info(self, run_id: str, run_status: Any, end_time: int, run_name: str) -> "RunInfo":
        """Change nothing: the run ends with its training."""
        return self._run().info

    def log_batch(
        self, run_id: str, metrics: "Sequence[Metric]", params: "Sequence[Param]", tags: "Sequence[RunTag]"
    ) -> None:
        """Write metrics, params and tags to the journal."""
        calls = _current()
        for metric in metrics:
            calls.logger.record({metric.key: metric.value}, metric.step)
        calls.logger.record_params({param.key: param.value for param in params})
        if values := {
            tag.key: calls.logger.redactor.text(str(calls.logger.redactor.value(tag.key, tag.value)))
            for tag in tags
        }:
            calls.recorder.journal.write("tags", values=values)

    def log_metric(self, run_id: str, metric: "Metric") -> None:
        """Write a metric to the journal."""
        self.log_batch(run_id, [metric], [], [])

    def log_param(self, run_id: str, param: "Param") -> None:
        """Write a param to the journal."""
        self.log_batch(run_id, [], [param], [])

    def set_tag(self, run_id: str, tag: "RunTag") -> None:
        """Write a tag to the journal."""
        self.log_batch(run_id, [], [], [tag])

    def get_experiment(self, experiment_id: str) -> "Experiment":
        """The experiment of the run, whatever id is asked for."""
        return self.get_experiment_by_name("")

    def get_experiment_by_name(self, experiment_name: str) -> "Experiment":
        """The experiment of the run, whatever name is asked for."""
        from mlflow.entities import Experiment

        calls = _current()
        return Experiment(calls.ids[1], calls.job.experiment, "", "active")

    def _run(self) -> "Run":
        from mlflow.entities import Run, RunData, RunInfo

        calls = _current()
        run, experiment = calls.ids
        files = (calls.job.path / ARTIFACTS).as_uri()  # the shipper sends what lies there
        info = RunInfo(
            run,
            experiment,
            "",
            "RUNNING",
            int(time.time() * 1000),
            None,
            "active",
            files,
            calls.job.path.name,
        )
        return Run(info, RunData())
