"""Runs grouped by configuration: those that differ in the seed alone are one row."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from regente.analysis.flat_config import SEED
from regente.analysis.intervals import half_width
from regente.analysis.run_records import RunRecord
from regente.analysis.versions import DIGEST, versions
from regente.config.discovery import suggest
from regente.errors import ConfigError, Problem, first_of
from regente.jobs.result import split_of

IRRELEVANT = ("tracking.", "loggers.")  # how a run is recorded
MISSING = "-"  # a setting that a configuration does not have
LESS_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "perplexity", "nll", "time", "seconds")
Unit = Any  # what two groups may share: a seed, and with --by also the settings that are not asked for


@dataclass(frozen=True)
class Metric:
    """The metric of a comparison."""

    name: str
    mode: str  # min or max

    @property
    def sign(self) -> int:
        return -1 if self.mode == "min" else 1

    @property
    def of_test(self) -> str:
        """Its name on the test split; empty if it is a test metric, or its name does not tell the split."""
        split, rest = split_of(self.name)
        return self.name.replace(split, "test", 1) if rest and split in ("val", "train") else ""


@dataclass(frozen=True, eq=False, repr=False)
class Group:
    """The runs of one configuration."""

    settings: dict[str, Any]  # the keys that differ between the groups, and the option of config groups
    runs: list[RunRecord]
    units: dict[Unit, RunRecord]  # the latest finished run of each seed
    metric: Metric
    name: str = ""  # that stands for the settings

    @cached_property
    def by_unit(self) -> dict[Unit, float]:
        """The metric of each finished run that has it."""
        found = {unit: run.metrics.get(self.metric.name) for unit, run in self.units.items()}
        return {unit: value for unit, value in found.items() if value is not None}

    def __repr__(self) -> str:
        return f"<{self.label}: {self.metric.name} {self.mean:.4f}, n={self.n}>"

    @property
    def values(self) -> list[float]:
        return list(self.by_unit.values())

    @property
    def n(self) -> int:
        return len(self.by_unit)

    @cached_property
    def mean(self) -> float:
        """The mean over the runs; NaN where none has finished."""
        return statistics.fmean(self.values) if self.n else math.nan

    @cached_property
    def sd(self) -> float:
        """The sample standard deviation; NaN for fewer than two."""
        return statistics.stdev(self.values) if self.n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % t interval of the mean; NaN for fewer than two runs."""
        half = half_width(self.values)
        return self.mean - half, self.mean + half

    @property
    def best_run(self) -> RunRecord | None:
        """The finished run with the best value."""
        runs = [run for unit, run in self.units.items() if unit in self.by_unit]
        return max(runs, key=lambda run: self.metric.sign * run.metrics[self.metric.name], default=None)

    @property
    def best(self) -> float:
        return (max if self.metric.sign > 0 else min)(self.values, default=math.nan)

    @property
    def worst(self) -> float:
        return (min if self.metric.sign > 0 else max)(self.values, default=math.nan)

    def mean_of(self, metric: str) -> float:
        """The mean of another metric over the runs that have it; NaN if none has."""
        found = [run.metrics[metric] for run in self.units.values() if metric in run.metrics]
        return statistics.fmean(found) if found else math.nan

    @property
    def repeats(self) -> int:
        """How many finished runs repeat the seed of a later one; they tell nothing new."""
        return sum(run.state == "done" for run in self.runs) - len(self.units)

    def count(self, *states: str) -> int:
        return sum(run.state in states for run in self.runs)

    @property
    def label(self) -> str:
        """`lr=0.01 model=mlp`."""
        names = short_names(self.settings)
        settings = " ".join(f"{names[key]}={shown(value)}" for key, value in self.settings.items())
        return self.name or settings or "all runs"


def make_groups(runs: Sequence[RunRecord], metric: Metric, by: Sequence[str] = ()) -> list[Group]:
    """One group for each configuration, or with `by` for each combination of the values of these keys; best first.

    Raises:
        ConfigError: for a key in `by` that no run has.
    """
    keys, data = differing(runs), _versions(runs)
    if by:
        known = {DIGEST, *_chosen(runs), *(key for run in runs for key in run.config), "experiment"}
        if unknown := [key for key in by if key not in known]:
            there = f"in these the runs differ: {first_of(keys, 10) or 'none but the seed'}"
            raise ConfigError(
                [Problem(f"--by {key}", f"no run has this setting; {there}") for key in unknown]
            )
        keys = list(by)
    found: dict[Any, list[RunRecord]] = {}
    for run in runs:
        key = tuple(setting(run, each) for each in by) if by else (configuration(run), data.get(run.path))
        found.setdefault(key, []).append(run)
    groups = [_group(each, keys, metric, by, data) for each in found.values()]
    return sorted(groups, key=lambda group: (math.isnan(group.mean), -metric.sign * group.mean))


def _group(
    runs: list[RunRecord], keys: Sequence[str], metric: Metric, by: Sequence[str], data: dict[Path, str]
) -> Group:
    units: dict[Unit, RunRecord] = {}
    for run in sorted((run for run in runs if run.state == "done"), key=lambda run: run.age):
        unit = run.path if run.seed is None else (identity(run, by) if by else run.seed)
        units[(unit, data[run.path]) if by and run.path in data else unit] = run
    example = next((run for run in runs if run.data), runs[0])
    return Group({key: setting(example, key) for key in keys}, runs, units, metric)


def configuration(run: RunRecord) -> tuple[str, frozenset[tuple[str, Any]]]:
    """What runs of one configuration share: the experiment, and all settings but the seed."""
    return run.experiment, identity(run, (SEED,))


def _versions(runs: Iterable[RunRecord]) -> dict[Path, str]:
    """The data of the runs of each configuration whose data changed between its runs."""
    runs = list(runs)
    if len({run.data for run in runs}) == 1:
        return {}
    found: dict[Any, list[RunRecord]] = {}
    for run in runs:
        found.setdefault(configuration(run), []).append(run)
    return {path: data for each in found.values() for path, data in versions(each).items()}


def identity(run: RunRecord, without: Sequence[str]) -> frozenset[tuple[str, Any]]:
    """What a run computes, without some settings; the option of a config group stands for its settings."""
    roots = tuple(f"{key}." for key in without)
    return frozenset(
        (key, value)
        for key, value in run.config.items()
        if key not in without and not key.startswith((*IRRELEVANT, *roots))
    )


def setting(run: RunRecord, key: str) -> Any:
    """The value of a setting, the option of a config group, or the experiment."""
    if key == "experiment":
        return run.experiment
    if key == DIGEST:
        return run.data[:12] or MISSING
    return run.config[key] if key in run.config else run.choices.get(key, MISSING)


def differing(runs: Iterable[RunRecord]) -> list[str]:
    """The keys in which runs differ besides the seed, the shortest description; the data last, where these changed.

    Where the options of a config group differ, they stand for its settings, but for settings that differ under the same
    option. A setting that takes its value from another one is left out.
    """
    runs = list(runs)
    found = ["experiment"] if len({run.experiment for run in runs}) > 1 else []
    found += [group for group, options in _chosen(runs).items() if len(options) > 1]
    known = dict.fromkeys(key for run in runs for key in run.config)
    same = {key for key in known if len({_comparable(run, key) for run in runs}) == 1}
    for key in known:
        if key in same or key == SEED or key.startswith(IRRELEVANT):
            continue
        if all(key in run.references for run in runs if key in run.config):
            continue
        root = key.partition(".")[0]
        by_option: dict[str | None, set[Any]] = {}
        for run in runs:
            by_option.setdefault(run.choices.get(root), set()).add(_comparable(run, key))
        if any(len(values) > 1 for values in by_option.values()):
            found.append(key)
    return found + [DIGEST] * bool(_versions(runs))


def _comparable(run: RunRecord, key: str) -> Any:
    return run.config.get(key, MISSING)


def _chosen(runs: Sequence[RunRecord]) -> dict[str, set[str]]:
    """The options of each config group among the runs."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for group, option in run.choices.items():
            found.setdefault(group, set()).add(option)
    return found


def metric_of(runs: Sequence[RunRecord], name: str | None) -> Metric:
    """The metric to compare by: the monitored one, unless a name is given.

    Raises:
        ConfigError: when runs monitor different metrics and none is named, or no run has the one that is.
    """
    monitors = dict.fromkeys(run.monitor for run in runs)
    if name is None:
        if len(monitors) > 1:
            there = ", ".join(sorted({metric for metric, _ in monitors}))
            raise ConfigError(
                [Problem("these runs", f"monitor different metrics ({there}); choose one: --metric")]
            )
        metric, mode = next(iter(monitors))
        return Metric(metric, mode)
    names = {metric for run in runs for metric in run.metrics}
    if name not in names and names:
        raise ConfigError([Problem(f"--metric {name}", f"no run has it; {suggest(name, sorted(names))}")])
    rest = split_of(name)[1]
    for metric, mode in monitors:
        if split_of(metric)[1] == rest:
            return Metric(name, mode)
    return Metric(name, "min" if any(word in rest.lower() for word in LESS_IS_BETTER) else "max")


def shown(value: Any) -> str:
    """A setting as in a config: `0.001`, `[1, 2]`, `null`."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def short_names(keys: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """The shortest ending of each dotted name that no other key has."""
    keys, taken = list(keys), set(taken)
    names = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        others = [other for other in keys if other != key]
        names[key] = next(
            end
            for end in endings
            if end == key
            or (end not in taken and not any(f".{other}".endswith(f".{end}") for other in others))
        )
    return names
