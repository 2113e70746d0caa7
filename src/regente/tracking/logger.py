"""Lightning's way into the journal."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from regente.tracking.journal import Journal


class JournalLogger(Logger):
    """A Lightning logger that appends to the journal; nothing here waits for the tracking store."""

    def __init__(self, journal: Journal, save_dir: str, name: str, version: str) -> None:
        super().__init__()
        self.journal = journal
        self._facts = save_dir, name, version

    @property
    def save_dir(self) -> str:
        return self._facts[0]

    @property
    def name(self) -> str:
        return self._facts[1]

    @property
    def version(self) -> str:
        return self._facts[2]

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the composed config is the run's parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the metrics of a step; Lightning's own `epoch` is left out, the step is the one axis."""
        values = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        if values:
            self.journal.write("metrics", step=step or 0, values=values)
