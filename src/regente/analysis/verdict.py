"""Whether a difference is established, in words."""

import math
from dataclasses import dataclass

from regente.analysis.groups import Group
from regente.analysis.predictions import test_scores
from regente.analysis.significance import (
    ALPHA,
    MOST_SEEDS,
    Difference,
    compare_samples,
    compare_seeds,
    further_seeds,
    holm,
)
from regente.jobs.job import DATA, read_json
from regente.jobs.result import split_of

SHARES = ("acc", "accuracy", "f1", "precision", "recall", "auroc", "iou", "dice", "top1", "top5")
ON_SAMPLES = ("McNemar", "paired bootstrap")


@dataclass(frozen=True, repr=False)
class Verdict:
    """What is known about the difference of two configurations, first minus second."""

    first: str
    second: str
    metric: str
    difference: Difference | None
    p: float = math.nan  # corrected for the number of comparisons
    comparisons: int = 1
    reason: str = ""  # why there is no difference to test

    @property
    def established(self) -> bool:
        return self.difference is not None and self.p < ALPHA

    @property
    def more_seeds(self) -> int | None:
        """How many more seeds for each side would tell; None where it is established, or for more than MOST_SEEDS."""
        over_seeds = self.difference is not None and self.difference.method not in ON_SAMPLES
        if self.difference is None or self.established or not over_seeds:
            return None
        return further_seeds(self.difference, self.comparisons)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        head = f"{self.first} against {self.second}: "
        if self.difference is None:
            return f"{head}{self.reason}"
        found = self.difference
        change, low, high = in_units(self.metric, found.effect, found.low, found.high)
        p = f"p = {found.p:.2g}"
        if self.comparisons > 1:
            p += f", {self.p:.2g} corrected for {self.comparisons:,} comparisons"
        return (
            f"{head}{change} {self.metric}, 95 % interval {low} to {high}, {_sample(found)} "
            f"({found.method}, {p}): {self._conclusion()}"
        )

    def _conclusion(self) -> str:
        assert self.difference is not None
        what = "established" if self.established else "not established"
        if self.difference.method in ON_SAMPLES:
            return (
                f"{what} for these two trained models; several seeds of each would tell it for the settings"
            )
        if self.established:
            return what
        more = self.more_seeds
        if more is None:
            return f"{what}; {MOST_SEEDS} more seeds would not tell a difference as small as this"
        noun = "seed" if more == 1 else "seeds"
        return f"{what}; about {more} more {noun} would tell, if the difference is what it looks like"


def in_units(metric: str, effect: float, low: float, high: float) -> tuple[str, str, str]:
    """The effect with sign and unit, and its interval: a share is in points of a hundred."""
    if split_of(metric)[1] in SHARES and max(abs(effect), abs(low), abs(high)) <= 1:
        return f"{100 * effect:+.2f} points", f"{100 * low:.2f}", f"{100 * high:.2f}"
    return f"{effect:+.3g}", f"{low:.3g}", f"{high:.3g}"


def _sample(difference: Difference) -> str:
    first, second = difference.n
    if difference.method == "paired t":
        return f"{first} paired seeds"
    if difference.method == "Welch":
        return f"{first} seeds each" if first == second else f"{first} and {second} seeds"
    return f"{first:,} test samples"


def best_against_others(groups: list[Group]) -> dict[int, Verdict]:
    """The best group against each other one, by its place; corrected for all pairs, since the values choose the best.

    The pairs without the best one are counted, not computed, which makes the correction a little too strict.
    """
    several = [place for place, group in enumerate(groups) if group.n > 1]
    if len(several) < 2:
        return {}
    first, *others = several
    found = {place: difference(groups[first], groups[place]) for place in others}
    tested = {place: each for place, each in found.items() if each is not None}
    pairs = len(several) * (len(several) - 1) // 2
    corrected = holm({place: each.p for place, each in tested.items()}, pairs)
    return {place: _of_seeds(groups[first], groups[place], each, corrected.get(place, math.nan), pairs)
            for place, each in found.items()}  # fmt: skip


def between(first: Group, second: Group, comparisons: int = 1) -> Verdict:
    """Two groups against each other: over their seeds, or with one run each on the test samples."""
    if first.n > 1 and second.n > 1:
        found = difference(first, second)
        p = min(1.0, comparisons * found.p) if found else math.nan
        return _of_seeds(first, second, found, p, comparisons)
    a, b = first.best_run, second.best_run
    names = first.label, second.label
    if a is None or b is None:
        return Verdict(*names, first.metric.name, None, reason="one of them has no finished run")
    if first.n != second.n:
        fewer = first if first.n == 1 else second
        return Verdict(
            *names, first.metric.name, None, reason=f"{fewer.label} has one seed; add some: --more-seeds"
        )
    scores = test_scores(a.path, b.path, split_of(first.metric.name)[1])
    if isinstance(scores, str):
        return Verdict(
            *names, first.metric.name, None, reason=f"one seed each, and {scores}; add seeds: --more-seeds"
        )
    tested = compare_samples(*scores[1:])
    return Verdict(*names, scores[0], tested, min(1.0, comparisons * tested.p), comparisons)


def _of_seeds(first: Group, second: Group, found: Difference | None, p: float, comparisons: int) -> Verdict:
    names = first.label, second.label, first.metric.name
    if found is None:
        change = in_units(first.metric.name, first.mean - second.mean, 0, 0)[0]
        same = "the same value for each seed" if first.mean == second.mean else f"{change} for each seed"
        return Verdict(*names, None, reason=f"{same}: there is no spread to test")
    return Verdict(*names, found, p, comparisons)


def difference(first: Group, second: Group) -> Difference | None:
    """The test over seeds; paired where both sides share seeds and splits."""
    return compare_seeds(first.by_unit, second.by_unit, paired=same_data(first, second))


def same_data(first: Group, second: Group) -> bool:
    """Whether two groups have the same data in the same splits."""
    a, b = (next(iter(group.units.values()), None) for group in (first, second))
    if a is None or b is None:
        return False
    recorded = [read_json(run.path / DATA) for run in (a, b)]
    if all(recorded):
        facts = [(each.get("digest"), each.get("splits")) for each in recorded]
        splits = [{key: value for key, value in run.config.items() if key.startswith("data.") and "split" in key}
                  for run in (a, b)]  # fmt: skip
        return facts[0] == facts[1] and splits[0] == splits[1]
    data = [{key: value for key, value in run.config.items() if key.startswith("data.")} for run in (a, b)]
    return data[0] == data[1]
