"""How often the intervals of `regente compare` hold the truth, and how often it says "established" where nothing is.

For each cell PAIRS pairs of groups are drawn with a known difference. With --seed they are the same numbers each time.
The table is written to stdout in Markdown: python benchmarks/coverage.py > table.md

    normal    the values of an accuracy over seeds
    skewed    an exponential distribution: skewness 2, mostly good with a tail of bad seeds
    ties      rounded to a validation set of 270 samples, sd of one sample: many equal values
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from regente.analysis.groups import Group, Metric
from regente.analysis.intervals import half_width
from regente.analysis.run_records import RunRecord
from regente.analysis.significance import ALPHA, compare_samples, compare_seeds, holm
from regente.analysis.verdict import best_against_others
from regente.sweeps.adaptive_seeds import AdaptiveSeeds
from regente.sweeps.protocols import TrialResult

PAIRS = 1_000
FAMILIES = 500
NUMBERS = (3, 5, 10)
CONFIGURATIONS = 20
DIFFERENCE, SD = 0.008, 0.006
METRIC = Metric("val/acc", "max")


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.95 + SD * rng.standard_normal(n)


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.95 + SD - SD * rng.standard_exponential(n)


def ties(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.round((0.95 + rng.standard_normal(n) / 270) * 270) / 270


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": normal,
    "skewed": skewed,
    "ties": ties,
}


def by_seed(values: np.ndarray) -> dict[int, float]:
    return dict(enumerate(map(float, values)))


def intervals(rng: np.random.Generator, shape: str, n: int) -> Iterator[tuple[str, float, float]]:
    """Coverage and false "established" of the interval of a mean, of Welch's test and of the paired test."""
    draw = SHAPES[shape]
    truth = float(np.mean(draw(rng, 1_000_000)))
    inside = {"mean": 0, "BCa": 0, "Welch": 0, "paired t": 0}
    false = dict.fromkeys(inside, 0)
    usable = dict.fromkeys(inside, 0)
    for _ in range(PAIRS):
        values = draw(rng, n)
        half = half_width(list(values))
        usable["mean"] += not np.isnan(half)
        inside["mean"] += abs(values.mean() - truth) <= half
        if n == max(NUMBERS) and values.std():
            usable["BCa"] += 1
            low, high = bootstrap((values,), np.mean, n_resamples=999, rng=rng).confidence_interval
            inside["BCa"] += low <= truth <= high
        own, other, shared = draw(rng, n), draw(rng, n), draw(rng, n) - truth
        for method, first, second in (
            ("Welch", own + DIFFERENCE, other),
            ("paired t", own + shared + DIFFERENCE, other + shared),
        ):
            found = compare_seeds(by_seed(first), by_seed(second), paired=method == "paired t")
            usable[method] += 1
            if found is None:  # no spread: no interval and no claim
                usable[method] -= 1
                continue
            inside[method] += found.low <= DIFFERENCE <= found.high
            null = compare_seeds(by_seed(first - DIFFERENCE), by_seed(second), paired=method == "paired t")
            false[method] += null is not None and null.p < ALPHA
    for method in inside:
        yield method, inside[method] / max(1, usable[method]), false[method] / PAIRS


def families(rng: np.random.Generator, shape: str, n: int) -> list[float]:
    """The share of tables of equal configurations with a false claim of the best one against any other:

    without correction, with Holm's for the comparisons with the best, with Holm's for all pairs as `regente compare`
    has it; and the last for the best two alone.
    """
    claims = np.zeros(4)
    for _ in range(FAMILIES):
        groups = sorted(
            (group(SHAPES[shape](rng, n)) for _ in range(CONFIGURATIONS)), key=lambda each: -each.mean
        )
        verdicts = best_against_others(groups)
        p = {place: v.difference.p for place, v in verdicts.items() if v.difference is not None}
        claims += [
            min(p.values()) < ALPHA,
            min(holm(p).values()) < ALPHA,
            any(v.established for v in verdicts.values()),
            verdicts[1].established,
        ]
    return list(claims / FAMILIES)


def group(values: np.ndarray) -> Group:
    """A configuration with these values over the seeds 0, 1, ..."""
    units = {
        seed: RunRecord(
            Path(str(seed)), "", [], [], {}, [], "", "done", {}, metrics={METRIC.name: float(value)}
        )
        for seed, value in enumerate(values)
    }
    return Group({}, list(units.values()), units, METRIC)


def samples(rng: np.random.Generator, size: int, of: float) -> tuple[float, float]:
    """Coverage of the interval for two models on the same test samples, and false claims, for an accuracy `of`."""
    inside = false = 0
    for _ in range(PAIRS):
        hard = rng.random(size)
        first, second = (
            rng.random(size) < np.clip(of + shift + 0.3 * (0.5 - hard), 0, 1) for shift in (0.0, -0.02)
        )
        truth = float(np.mean(np.clip(of + 0.3 * (0.5 - np.linspace(0, 1, 100_001)), 0, 1))
                      - np.mean(np.clip(of - 0.02 + 0.3 * (0.5 - np.linspace(0, 1, 100_001)), 0, 1)))  # fmt: skip
        found = compare_samples(first, second)
        inside += found.low <= truth <= found.high
        third = rng.random(size) < np.clip(of + 0.3 * (0.5 - hard), 0, 1)
        false += compare_samples(first, third).p < ALPHA
    return inside / PAIRS, false / PAIRS


def adaptive(rng: np.random.Generator, shape: str, width: float) -> tuple[float, float, float]:
    """Coverage of the interval at which adaptive seeds stop, that without correction, and how many seeds it took."""
    draw = SHAPES[shape]
    truth = float(np.mean(draw(rng, 1_000_000)))
    config = {"seed": 0, "monitor": {"metric": METRIC.name}}
    inside, naive, numbers = 0, 0, []
    for _ in range(PAIRS):
        source = AdaptiveSeeds(Path(), [], config, params={"seed": f"until({width})"}, most=40)
        while (trial := source.ask()) is not None:
            source.tell(trial, TrialResult(0, {METRIC.name: float(draw(rng, 1)[0])}))
        (state,) = source.states
        error = abs(statistics.fmean(state.values) - truth)
        inside += error <= state.half_width
        naive += error <= half_width(state.values)
        numbers.append(len(state.values))
    return inside / PAIRS, naive / PAIRS, statistics.fmean(numbers)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    rng = np.random.default_rng(parser.parse_args().seed)
    print(f"{PAIRS:,} pairs a cell; share of 95 % intervals that hold the truth / of false claims")
    print("\n| values | n | mean, t | mean, bootstrap | Welch | paired t |\n|---|---:|---:|---:|---:|---:|")
    for shape in SHAPES:
        for n in NUMBERS:
            found = {method: (held, false) for method, held, false in intervals(rng, shape, n)}
            row = [f"{held:.1%} / {false:.1%}" for held, false in list(found.values())[2:]]
            row = [f"{found['mean'][0]:.1%}", f"{found['BCa'][0]:.1%}" if found["BCa"][0] else "", *row]
            print(f"| {shape} | {n} | {' | '.join(row)} |")
            sys.stdout.flush()
    print(f"\n{FAMILIES} tables of {CONFIGURATIONS} equal configurations; share with a false claim")
    print(
        "\n| values | n | without correction | Holm, 19 comparisons | Holm, all 190 pairs | the same, best two |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for shape in SHAPES:
        for n in NUMBERS:
            print(f"| {shape} | {n} | {' | '.join(f'{share:.1%}' for share in families(rng, shape, n))} |")
            sys.stdout.flush()
    print("\nOne run each, on the same test samples")
    print("\n| samples | accuracy | held | false claims |\n|---:|---:|---:|---:|")
    for size, of in ((270, 0.95), (1_000, 0.8)):
        held, false = samples(rng, size, of)
        print(f"| {size:,} | {of} | {held:.1%} | {false:.1%} |")
    print(f"\nAdaptive seeds, {PAIRS:,} sources a row, at most 40 seeds")
    print("\n| values | half width asked | held | held by the interval without correction | seeds |")
    print("|---|---:|---:|---:|---:|")
    for shape in SHAPES:
        for width in (0.008, 0.004):
            held, naive, number = adaptive(rng, shape, width)
            print(f"| {shape} | {width} | {held:.1%} | {naive:.1%} | {number:.1f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
