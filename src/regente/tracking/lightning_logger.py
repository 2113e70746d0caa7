"""The Lightning logger of a run, which writes to the journal."""

import math
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from regente.config.redaction import Redactor
from regente.jobs.job import ARTIFACTS, Job
from regente.jobs.result import as_test_metrics
from regente.tracking.experiment import Experiment
from regente.tracking.journal import Journal, read
from regente.tracking.shipping_state import read_state

PLAIN = (bool, int, float, str, type(None), list, tuple, dict)  # hyperparameters that are no objects


class JournalLogger(Logger):
    """Appends metrics to the journal; it never waits for the tracking store.

    A resumed run repeats steps whose metrics were recorded before the interruption. A metric with the same value is not
    recorded again, nor is `train/samples_per_second`, whose value always differs.
    """

    def __init__(self, journal: Journal, job: Job, redactor: Redactor | None = None) -> None:
        super().__init__()
        self.journal, self.job, self.redactor = journal, job, redactor or Redactor()
        self.others: list[Logger] = []  # which the config has beside this one
        self.testing = False  # whether the metrics are those of a test
        self.step = 0  # of the last metrics
        lines = read(journal.path, 0)[0] if journal.path.is_file() else []  # of a rerun: /dev/null
        self.known = {
            (key, line["step"]): value
            for line in lines
            if line["kind"] == "metrics"
            for key, value in line["values"].items()
        }
        self.params = {
            key: value for line in lines if line["kind"] == "params" for key, value in line["values"].items()
        }

    @property
    def save_dir(self) -> str:
        return str(self.job.path)

    @property
    def name(self) -> str:
        return self.job.experiment

    @property
    def version(self) -> str:
        return self.job.path.name

    @property
    def run_id(self) -> str:
        """The run's id in MLflow, as `MLFlowLogger` has it; until there is one, a name for it.

        MLflow keeps by this id where files go, in all of a process: jobs of two folders may have one name.
        """
        made_up = f"{self.version}-{sha256(str(self.job.path).encode()).hexdigest()[:8]}"
        return str(read_state(self.job.path).get("run_id", made_up))

    @property
    @rank_zero_experiment
    def experiment(self) -> Experiment:
        """What a task's own calls go to."""
        return self._experiment

    @cached_property
    def _experiment(self) -> Experiment:
        return Experiment(self, self.job.path / ARTIFACTS)

    def __getattr__(self, name: str) -> Any:
        # methods that loggers of Lightning have beyond their base class, such as `log_image`
        if name.startswith(("log_", "add_", "watch", "unwatch")):
            return getattr(self.experiment, name)
        raise AttributeError(f"the logger of Regente has no {name}")

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Record the plain ones as params `hparams.NAME`; networks and other objects are in the config."""
        found = vars(params) if isinstance(params, Namespace) else dict(params or {})
        self.record_params(
            {f"hparams.{key}": value for key, value in found.items() if isinstance(value, PLAIN)}
        )
        if isinstance(metrics, Mapping):
            self.record(metrics, self.step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the metrics of a step; Lightning's own `epoch` is omitted: the only axis is the step."""
        self.step = step or 0
        values = {key: value for key, value in metrics.items() if key != "epoch"}
        self.record(as_test_metrics(values) if self.testing else values, self.step)

    def record(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Append metrics as they are named."""
        step = self.step if step is None else step
        values = {key: float(value) for key, value in metrics.items()}
        if self.known:
            values = {key: value for key, value in values.items() if not self._is_known(key, step, value)}
        if values:
            self.journal.write("metrics", step=step, values=values)

    def record_params(self, params: Mapping[str, Any]) -> None:
        """Append parameters that are new or have changed."""
        shown = {key: self.redactor.tree(value, key) for key, value in params.items()}
        values = {key: self.redactor.text(str(value)) for key, value in shown.items()}
        if new := {key: value for key, value in values.items() if self.params.get(key) != value}:
            self.params |= new
            self.journal.write("params", values=new)

    def _is_known(self, key: str, step: int, value: float) -> bool:
        before = self.known.get((key, step))
        if before is None or key == "train/samples_per_second":
            return before is not None
        return value == before or (math.isnan(value) and math.isnan(before))
