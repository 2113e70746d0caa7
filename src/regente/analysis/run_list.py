"""The list of runs that `regente.runs()` gives, with a table, a verdict and a plot for a notebook."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.analysis.comparison import Comparison, compare_runs
from regente.analysis.formats import as_html
from regente.analysis.groups import Group, shown
from regente.analysis.run_records import RunRecord, read_runs, select
from regente.analysis.verdict import Verdict
from regente.errors import TrackingError
from regente.jobs.runs import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Side = Run | Group | str | Iterable[Run]


class Runs(list[Run]):
    """Finished runs, the oldest first: a list that can compare them. A notebook shows it as a table."""

    @cached_property
    def records(self) -> list[RunRecord]:
        """The runs as plain records, read once."""
        return read_runs(run.job.path for run in self)[0]

    def comparison(self, metric: str | None = None, by: Sequence[str] = ()) -> Comparison:
        """What `regente compare` prints: `rows()`, `verdict`, `notes()`.

        Raises:
            ConfigError: when they monitor different metrics and none is named.
        """
        if not self.records:
            raise TrackingError("no finished run to compare; regente.train() makes one")
        return compare_runs({"": self.records}, metric, by)

    def table(self, metric: str | None = None, by: Sequence[str] = ()) -> "pd.DataFrame":
        """A row for each configuration, best first: the settings that differ, n, mean, sd, interval, best, worst, test."""
        import pandas as pd

        rows = self.comparison(metric, by).rows()
        return pd.DataFrame(
            [
                {key: shown(value) if isinstance(value, tuple) else value for key, value in row.items()}
                for row in rows
            ]
        )

    def groups(self, metric: str | None = None, by: Sequence[str] = ()) -> list[Group]:
        """The runs by configuration, best first; those that differ in the seed alone are one group."""
        return self.comparison(metric, by).groups

    def compare(self, first: Side, second: Side, metric: str | None = None) -> Verdict:
        """Whether the difference of two runs, groups or lists of runs is established; a text names runs as on a command line."""
        names = [_name(side) for side in (first, second)]
        if names[0] == names[1]:
            names = ["first", "second"]
        verdict = compare_runs(dict(zip(names, map(_records, (first, second)), strict=True)), metric).verdict
        assert verdict is not None
        return verdict

    def plot(self, metric: str | None = None, by: Sequence[str] = (), ax: "Axes | None" = None) -> "Axes":
        """The value of each run, and mean and 95 % interval of each configuration, best on top."""
        found = self.comparison(metric, by)
        if ax is None:
            from matplotlib import pyplot as plt

            _, ax = plt.subplots(figsize=(7, 1 + 0.4 * len(found.groups)), layout="constrained")
        for place, group in enumerate(found.groups):
            low, high = group.interval
            error = [[group.mean - low], [high - group.mean]]
            ax.plot(group.values, [place] * group.n, "o", color="tab:gray", alpha=0.5)
            ax.errorbar([group.mean], [place], xerr=error, fmt="D", color="tab:blue", capsize=3)
        ax.set_yticks(range(len(found.groups)), [f"{group.label} (n={group.n})" for group in found.groups])
        ax.invert_yaxis()
        ax.set_xlabel(f"{found.metric.name}, mean and 95 % interval")
        return ax

    def _repr_html_(self) -> str | None:
        try:
            found = self.comparison()
        except Exception:  # a list shows itself, whatever is in it
            return None
        return as_html(found, found.lines())


def _name(side: Any) -> str:
    if isinstance(side, Group):
        return side.label
    return side if isinstance(side, str) else side.job.path.name if isinstance(side, Run) else "runs"


def _records(side: Any) -> list[RunRecord]:
    if isinstance(side, Group):
        return side.runs
    if isinstance(side, str):
        return read_runs(select([side], Path.cwd())[side])[0]
    return read_runs([side.job.path] if isinstance(side, Run) else [run.job.path for run in side])[0]
