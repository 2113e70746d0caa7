"""The Lightning logger of a run, which writes to the journal."""

import math
from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from regente.jobs.result import as_test_metrics
from regente.tracking.journal import Journal, read


class JournalLogger(Logger):
    """Appends metrics to the journal; it never waits for the tracking store.

    A resumed run repeats steps whose metrics were recorded before the interruption. A metric with the same value is not
    recorded again, nor is `train/samples_per_second`, whose value always differs.
    """

    def __init__(self, journal: Journal, save_dir: str, name: str, version: str) -> None:
        super().__init__()
        self.journal = journal
        self.testing = False  # whether the metrics are those of a test
        self._places = save_dir, name, version
        self.known = {
            (key, line["step"]): value
            for line in read(journal.path, 0)[0]
            if line["kind"] == "metrics"
            for key, value in line["values"].items()
        }

    @property
    def save_dir(self) -> str:
        return self._places[0]

    @property
    def name(self) -> str:
        return self._places[1]

    @property
    def version(self) -> str:
        return self._places[2]

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing: the params of the run are the composed config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the metrics of a step; Lightning's own `epoch` is omitted: the only axis is the step."""
        step = step or 0
        values = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if self.testing:
            values = as_test_metrics(values)
        if self.known:
            values = {key: value for key, value in values.items() if not self._is_known(key, step, value)}
        if values:
            self.journal.write("metrics", step=step, values=values)

    def _is_known(self, key: str, step: int, value: float) -> bool:
        before = self.known.get((key, step))
        if before is None or key == "train/samples_per_second":
            return before is not None
        return value == before or (math.isnan(value) and math.isnan(before))
