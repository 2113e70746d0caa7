"""Whether a difference is real. The distributions are scipy's, which is imported by the first test.

paired t test      Student, "The probable error of a mean", Biometrika 6, 1908
Welch's t test     Welch, "The generalization of 'Student's' problem ...", Biometrika 34, 1947
exact McNemar      McNemar, "Note on the sampling error of the difference ...", Psychometrika 12, 1947
paired bootstrap   Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; scipy.stats.bootstrap
Holm's correction  Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979
more seeds         power of the t test by the noncentral t: Cohen, "Statistical Power Analysis", 1988
"""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regente.analysis.intervals import LEVEL, quantile

ALPHA = 1 - LEVEL
POWER = 0.8  # of the number of seeds that is proposed
MOST_SEEDS = 200  # to propose
RESAMPLES = 9_999
ROUNDING = 1e-9
BCA_SAMPLES = 2_000  # for more, the percentile bootstrap: the time of BCa is quadratic


@dataclass(frozen=True)
class Difference:
    """The difference of two means, first minus second."""

    effect: float
    low: float  # of the 95 % interval
    high: float
    p: float  # two-sided, not corrected for further comparisons
    n: tuple[int, int]  # values on each side; samples for predictions
    method: str  # paired t, Welch, McNemar, paired bootstrap
    error: float = math.nan  # standard error, of the t tests


def compare_seeds(first: Mapping[Any, float], second: Mapping[Any, float], paired: bool) -> Difference | None:
    """The t test of the values of two configurations by seed; None where one has too few, or nothing varies.

    `paired`: over the seeds that both have, if those are all of one side; else Welch's test of all values. Which test it
    is does not depend on the values.
    """
    shared = sorted(first.keys() & second.keys(), key=str) if paired else []
    if len(shared) > 1 and len(shared) == min(len(first), len(second)):
        return _paired([first[key] - second[key] for key in shared])
    return _welch(list(first.values()), list(second.values()))


def _paired(differences: Sequence[float]) -> Difference | None:
    n = len(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    return _t_test(statistics.fmean(differences), error, n - 1, (n, n), "paired t")


def _welch(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    if min(len(first), len(second)) < 2:
        return None
    a, b = (statistics.variance(values) / len(values) for values in (first, second))
    if a + b == 0:
        return None
    df = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    effect = statistics.fmean(first) - statistics.fmean(second)
    return _t_test(effect, math.sqrt(a + b), df, (len(first), len(second)), "Welch")


def _t_test(effect: float, error: float, df: float, n: tuple[int, int], method: str) -> Difference | None:
    if error <= ROUNDING * abs(effect):  # no spread tells nothing of the spread of further seeds
        return None
    from scipy.special import stdtr

    half = quantile(df) * error
    p = 2 * float(stdtr(df, -abs(effect) / error))
    return Difference(effect, effect - half, effect + half, p, n, method, error)


def compare_samples(first: Any, second: Any) -> Difference:
    """The difference of two models on the same samples, from an array each: 0 and 1 for right, or a loss.

    For 0 and 1 the p value is that of the exact McNemar test; the interval is the t interval of the differences, which
    holds the truth more often than the bootstrap (benchmarks/coverage.py). For losses both are of the bootstrap. It is
    about these two trained models, not about other seeds.
    """
    import numpy as np
    from scipy.special import bdtr

    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    n, effect = len(differences), float(differences.mean())
    if set(np.unique(differences)) <= {-1.0, 0.0, 1.0}:
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        p = min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5))) if better + worse else 1.0
        half = quantile(n - 1) * float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        return Difference(effect, effect - half, effect + half, p, (n, n), "McNemar")
    low, high, p = _bootstrap(differences)
    return Difference(effect, low, high, p, (n, n), "paired bootstrap")


def _bootstrap(differences: Any) -> tuple[float, float, float]:
    """The interval of the mean, and a p value: the level at which the percentile interval begins to hold zero."""
    import numpy as np
    from scipy.stats import bootstrap

    n = len(differences)
    if n < 2 or np.ptp(differences) == 0:
        mean = float(differences.mean())
        return mean, mean, 1.0
    method = "BCa" if n <= BCA_SAMPLES else "percentile"
    found = bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, batch=max(1, 2_000_000 // n), method=method,
        confidence_level=LEVEL, rng=np.random.default_rng(0),
    )  # fmt: skip
    below = float((found.bootstrap_distribution <= 0).mean())
    above = float((found.bootstrap_distribution >= 0).mean())
    p = min(1.0, 2 * max(min(below, above), 1 / (RESAMPLES + 1)))
    return float(found.confidence_interval.low), float(found.confidence_interval.high), p


def holm(p_values: Mapping[Hashable, float], comparisons: int | None = None) -> dict[Any, float]:
    """The p values corrected for their number, or for a larger number of comparisons of which these are a part."""
    left, largest, found = comparisons or len(p_values), 0.0, {}
    for key, p in sorted(p_values.items(), key=lambda item: item[1]):
        largest = max(largest, min(1.0, left * p))
        found[key] = largest
        left -= 1
    return found


def further_seeds(difference: Difference, comparisons: int = 1) -> int | None:
    """How many more seeds for each side would tell, if effect and spread stay as they are; None for more than MOST_SEEDS."""
    import numpy as np
    from scipy.special import nctdtr, stdtrit

    paired = difference.method == "paired t"
    now = min(difference.n)
    spread = difference.error * math.sqrt(now if paired else 1 / sum(1 / n for n in difference.n))
    n = np.arange(max(now, 2), now + MOST_SEEDS + 1)
    df = n - 1 if paired else 2 * (n - 1)
    noncentral = abs(difference.effect) / spread * np.sqrt(n if paired else n / 2)
    power = 1 - nctdtr(df, noncentral, stdtrit(df, 1 - ALPHA / 2 / comparisons))
    enough = n[np.nan_to_num(power, nan=1.0) >= POWER]
    return max(1, int(enough[0]) - now) if len(enough) else None
