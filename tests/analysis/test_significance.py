"""The tests agree with scipy.stats, and with numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import stdtrit

from regente.analysis.intervals import T, half_width, quantile
from regente.analysis.significance import compare_samples, compare_seeds, further_seeds, holm

A = {1: 0.91, 2: 0.93, 3: 0.92, 4: 0.95, 5: 0.94}
B = {1: 0.90, 2: 0.925, 3: 0.915, 4: 0.93, 5: 0.94}


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    assert pytest.approx([stdtrit(df, 0.975) for df in range(1, len(T) + 1)], rel=1e-9) == list(T)
    for level in (0.95, 0.99):
        low, high = stats.t.interval(level, 4, np.mean([*A.values()]), stats.sem([*A.values()]))
        assert half_width([*A.values()], level) == pytest.approx((high - low) / 2, rel=1e-9)
    assert quantile(100.5) == pytest.approx(stats.t.ppf(0.975, 100.5))
    assert math.isnan(half_width([1.0])) and math.isnan(half_width([1.0, 1.0]))


def test_the_t_tests_are_those_of_scipy() -> None:
    a, b = [*A.values()], [*B.values()]
    for found, known, method in [
        (compare_seeds(A, B, paired=True), stats.ttest_rel(a, b), "paired t"),
        (compare_seeds(A, B, paired=False), stats.ttest_ind(a, b, equal_var=False), "Welch"),
    ]:
        interval = known.confidence_interval(0.95)
        assert found is not None
        assert (found.p, found.low, found.high) == pytest.approx(
            (known.pvalue, interval.low, interval.high), rel=1e-8
        )
        assert found.method == method


def test_which_test_it_is_depends_on_the_seeds_alone() -> None:
    few, other = {1: 0.9, 2: 0.91}, {1: 0.8, 7: 0.85, 8: 0.83}
    found, mixed = compare_seeds(A, few, paired=True), compare_seeds(A, other, paired=True)
    assert found and (found.method, found.n) == ("paired t", (2, 2))  # all seeds of one side
    assert mixed and (mixed.method, mixed.n) == ("Welch", (5, 3))
    assert compare_seeds(A, {1: 0.9}, paired=True) is None
    assert compare_seeds({1: 0.5, 2: 0.5}, {1: 0.4, 2: 0.4}, paired=True) is None  # no spread
    assert compare_seeds(A, {seed: value - 0.1 for seed, value in A.items()}, paired=True) is None


def test_predictions_are_compared_by_mcnemar_and_the_bootstrap() -> None:
    first = np.r_[np.ones(12), np.zeros(3), np.ones(85)]
    second = np.r_[np.zeros(12), np.ones(3), np.ones(85)]
    found = compare_samples(first, second)
    assert found.p == pytest.approx(stats.binomtest(3, 15, 0.5).pvalue)
    assert (found.method, found.effect, found.n) == ("McNemar", pytest.approx(0.09), (100, 100))
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-8)
    same = compare_samples(first, first)
    assert (same.effect, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    losses = np.random.default_rng(0).normal(1.0, 0.1, (2, 3_000))
    found = compare_samples(losses[0] + 0.02, losses[1])
    normal = stats.ttest_rel(losses[0] + 0.02, losses[1])
    assert found.method == "paired bootstrap"
    assert (found.low, found.high) == pytest.approx(tuple(normal.confidence_interval(0.95)), abs=5e-4)
    assert found.p < 0.001


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )  # Holm, 1979
    assert holm({"a": 0.01, "b": 0.5}, comparisons=10) == pytest.approx({"a": 0.1, "b": 1.0})


def test_the_proposed_seeds_reach_the_power() -> None:
    found = compare_seeds(A, B, paired=True)
    assert found is not None
    more = further_seeds(found)
    assert more is not None
    n = 5 + more
    effect = found.effect / (found.error * math.sqrt(5))
    power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n))
    before = stats.nct.sf(stats.t.ppf(0.975, n - 2), n - 2, effect * math.sqrt(n - 1))
    assert before < 0.8 <= power
    assert further_seeds(found, comparisons=50) > more  # type: ignore[operator]
    small = compare_seeds(
        A, {seed: value + 0.001 * (-1) ** seed + 1e-6 for seed, value in A.items()}, paired=True
    )
    assert small is not None and further_seeds(small) is None
