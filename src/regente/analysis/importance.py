"""Which settings mattered among runs, which acted together, and which changed nothing to the bit.

Share of a setting  fANOVA (Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance",
                    ICML 2014) of Optuna, where that is installed; else main effects: omega squared (Hays, 1963)
Interactions        F test of two linear models, with and without the products of two settings; Holm over the pairs
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any

from regente.analysis.flat_config import SEED
from regente.analysis.groups import Metric, differing, identity, setting, shown
from regente.analysis.run_records import RunRecord
from regente.analysis.why import part, points_of
from regente.jobs.trace_file import TRACE, read_trace

LEVELS = 6  # a numeric setting with more values is cut into thirds
FEWEST = 4  # runs
SIGNIFICANT = 0.05
FANOVA = "fANOVA of Optuna"
MAIN_EFFECTS = "main effects, omega squared"


@dataclass(frozen=True)
class Effect:
    """What one setting did."""

    key: str
    share: float | None  # of the variance of the metric; None where that cannot be told
    levels: list[tuple[str, float, int]]  # value, mean of the metric, number of runs; best first
    dead: int  # pairs of runs that differ in it alone, if all of them are equal to the bit; else 0


@dataclass(frozen=True)
class Importance:
    """What the settings of a set of runs did to a metric."""

    metric: Metric
    method: str
    n: int
    effects: list[Effect]  # the most important first
    interactions: list[tuple[str, str, float, float]]  # two keys, share of the variance, p after Holm

    def lines(self) -> Iterator[str]:
        """The answer for the terminal."""
        if not self.effects:
            yield f"{self.n} finished runs, which differ in no setting"
            return
        yield f"{self.metric.name} of {self.n} runs, by {self.method}"
        width = max(len(each.key) for each in self.effects)
        for each in self.effects:
            share = "   -" if each.share is None else f"{each.share:4.0%}"
            best, mean, n = each.levels[0]
            worst = each.levels[-1]
            text = (
                f"best {best} (mean {mean:.4g}, n={n}), worst {worst[0]} (mean {worst[1]:.4g}, n={worst[2]})"
            )
            yield f"  {share}  {each.key:<{width}}  {text}"
        for a, b, more, p in self.interactions:
            yield f"  {a} and {b} act together: {more:.0%} more, p={p:.2g}"
        for each in self.effects:
            if each.dead:
                yield f"  {each.key} is dead: it changed nothing to the bit in {each.dead} pairs of runs"


def importance(runs: Sequence[RunRecord], metric: Metric, *, fast: bool = False) -> Importance:
    """What each setting did, among the finished runs that have the metric; `fast`: without Optuna's 3 CPU-seconds."""
    done = [run for run in runs if run.state == "done" and metric.name in run.metrics]
    keys = differing(done)
    if len({run.seed for run in done}) > 1:
        keys.append(SEED)
    columns = {key: [setting(run, key) for run in done] for key in keys}
    values = [run.metrics[metric.name] for run in done]
    method, shares, interactions = MAIN_EFFECTS, dict[str, float](), list[tuple[str, str, float, float]]()
    if len(done) >= FEWEST and len(set(values)) > 1 and keys:
        found = fanova(columns, values) if not fast and find_spec("optuna") else {}
        method, shares = (FANOVA, found) if found else (MAIN_EFFECTS, main_effects(columns, values))
        interactions = interacting({key: columns[key] for key in keys if key != SEED}, columns, values)
    effects = [
        Effect(key, shares.get(key), _means(columns[key], values, metric), dead_pairs(done, key))
        for key in keys
    ]
    effects.sort(key=lambda each: -(each.share or 0.0))
    return Importance(metric, method, len(done), effects, interactions)


def fanova(columns: dict[str, list[Any]], values: Sequence[float]) -> dict[str, float]:
    """The share of each setting, summing to 1; empty where Optuna has no answer."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, kinds, made = optuna.create_study(), dict[str, BaseDistribution](), dict[str, list[Any]]()
    for key, column in columns.items():
        if _is_numeric(column) and len(set(column)) > 2 and key != SEED:
            low, high = float(min(column)), float(max(column))
            kinds[key] = FloatDistribution(low, high, log=low > 0 and high / low >= 10)
            made[key] = [float(value) for value in column]
        else:
            made[key] = [shown(value) for value in column]
            kinds[key] = CategoricalDistribution(sorted(set(made[key])))
    for number, value in enumerate(values):
        params = {key: made[key][number] for key in made}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=value))
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError, ZeroDivisionError):  # a constant metric
        return {}
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}


def main_effects(columns: dict[str, list[Any]], values: Sequence[float]) -> dict[str, float]:
    """Omega squared of each setting in the model of all main effects; nothing where that model leaves no residuals."""
    total = _explained([], values)[0]
    every = [_dummies(column) for column in columns.values()]
    rest, df = _explained(every, values)
    if not df or not total:
        return {}
    found = {}
    for number, key in enumerate(columns):
        without, df_without = _explained(every[:number] + every[number + 1 :], values)
        error = rest / df
        found[key] = max(0.0, (without - rest - (df_without - df) * error) / (total + error))
    return found


def interacting(
    columns: dict[str, list[Any]], every: dict[str, list[Any]], values: Sequence[float]
) -> list[tuple[str, str, float, float]]:
    """The pairs of settings whose effects do not add up, with the share of the variance and the corrected p value."""
    from scipy.special import fdtrc

    from regente.analysis.significance import holm

    mains = [_dummies(column) for column in every.values()]
    total = _explained([], values)[0]
    rest, df = _explained(mains, values)
    found = {}
    for a, b in combinations(columns, 2):
        rows = zip(_dummies(columns[a]), _dummies(columns[b]), strict=True)
        product = [[x * y for x in left for y in right] for left, right in rows]
        with_pair, df_pair = _explained([*mains, product], values)
        if df_pair and df > df_pair and rest - with_pair > 1e-9 * total:
            ratio = (rest - with_pair) / (df - df_pair) / max(with_pair / df_pair, 1e-12 * total)
            found[a, b] = (rest - with_pair) / total, float(fdtrc(df - df_pair, df_pair, ratio))
    corrected = holm({pair: p for pair, (_, p) in found.items()})
    return sorted(
        ((*pair, found[pair][0], p) for pair, p in corrected.items() if p < SIGNIFICANT),
        key=lambda each: -each[2],
    )


def _explained(blocks: Sequence[Sequence[Sequence[float]]], values: Sequence[float]) -> tuple[float, int]:
    """The squares that a linear model leaves, and their degrees of freedom."""
    import numpy as np

    columns = np.hstack([np.ones((len(values), 1)), *(np.asarray(block, float) for block in blocks)])
    solution, _, rank, _ = np.linalg.lstsq(columns, np.asarray(values), rcond=None)
    residuals = np.asarray(values) - columns @ solution
    return float(residuals @ residuals), len(values) - int(rank)


def _dummies(column: Sequence[Any]) -> list[list[float]]:
    """One column for each level but the first."""
    levels = _levels(column)
    names = list(dict.fromkeys(levels))[1:]
    return [[float(level == name) for name in names] for level in levels]


def _levels(column: Sequence[Any]) -> list[Hashable]:
    if not _is_numeric(column) or len(set(column)) <= LEVELS:
        return list(column)
    ordered = sorted(column)
    cuts = [ordered[len(ordered) * third // 3] for third in (1, 2)]
    return [sum(value >= cut for cut in cuts) for value in column]


def _is_numeric(column: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _means(column: Sequence[Any], values: Sequence[float], metric: Metric) -> list[tuple[str, float, int]]:
    """The mean of the metric at each value, or in each third of the values; best first."""
    levels = _levels(column)
    found = []
    for level in dict.fromkeys(levels):
        inside = [place for place, other in enumerate(levels) if other == level]
        here = [column[place] for place in inside]
        ends = dict.fromkeys([min(here), max(here)]) if _is_numeric(column) else here[:1]
        mean = sum(values[place] for place in inside) / len(inside)
        found.append((" to ".join(map(shown, ends)), mean, len(inside)))
    return sorted(found, key=lambda each: -metric.sign * each[1])


def dead_pairs(runs: Sequence[RunRecord], key: str) -> int:
    """How many pairs of runs that differ in this setting alone are equal to the bit; 0 if one is not."""
    alike: dict[Any, dict[Any, RunRecord]] = {}
    for run in runs:
        alike.setdefault((run.experiment, identity(run, (key,))), {})[setting(run, key)] = run
    pairs = 0
    for found in alike.values():
        first, *others = found.values()
        for other in others:
            if not _equal(first, other):
                return 0
            pairs += 1
    return pairs


def _equal(a: RunRecord, b: RunRecord) -> bool:
    """Whether two runs took the same steps to the same metrics; a run without a trace tells nothing."""
    if a.metrics != b.metrics:
        return False
    then, now = (points_of(read_trace(run.path / TRACE)) for run in (a, b))
    return bool(then) and bool(now) and max(then)[0] == max(now)[0] and part(then, now)[0] is None
