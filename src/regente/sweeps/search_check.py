"""Every reason why a search cannot run, before Optuna is imported."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from regente.config.check_consistency import LOGGED
from regente.config.check_part import part_problems
from regente.config.signatures import TargetNotFound, read
from regente.errors import ConfigError, Problem
from regente.jobs.result import split_of
from regente.sweeps.distributions import Interval, Space

PLACE = "hydra.sweeper"
SETTINGS = (
    *("metric", "direction", "n_trials", "n_jobs", "max_failure_rate", "storage", "study_name"),
    *("custom_search_space", "sampler", "pruner"),
)
BASES = {"sampler": "optuna.samplers.BaseSampler", "pruner": "optuna.pruners.BasePruner"}
DIRECTIONS = {"min": "minimize", "max": "maximize"}


@dataclass(frozen=True)
class Objective:
    """The metrics that a search optimizes."""

    metrics: list[str]
    directions: list[str]  # minimize or maximize
    pruned: bool  # trials report after each validation, and a pruner may stop them

    def values(self, metrics: Mapping[str, float]) -> list[float] | None:
        """The objective's values among a job's metrics; None where one is not a number.

        Raises:
            ConfigError: when one is missing.
        """
        if missing := [name for name in self.metrics if name not in metrics]:
            what = f"the job is done and has no such metric; it has: {', '.join(metrics)}"
            raise ConfigError([Problem(f"{PLACE}.metric={missing[0]}", what)])
        values = [metrics[name] for name in self.metrics]
        return None if any(map(math.isnan, values)) else values


def check(space: Space, settings: dict[str, Any], config: dict[str, Any]) -> Objective:
    """The objective of a search.

    Raises:
        ConfigError: with all that is wrong with the settings of `hydra.sweeper`.
    """
    problems = [*_settings(settings), *_drawn(space, settings)]
    objective = _objective(settings, config)
    problems += [*_metrics(objective, config), *_pruning(objective, settings)]
    if problems:
        raise ConfigError(problems)
    return objective


def _settings(settings: dict[str, Any]) -> Iterator[Problem]:
    for key in settings:
        if key not in SETTINGS:
            close = get_close_matches(key, SETTINGS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(SETTINGS)}"
            yield Problem(f"{PLACE}.{key}", f"no such setting; {hint}")
    for key in ("n_trials", "n_jobs"):
        value = settings[key]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            yield Problem(f"{PLACE}.{key}={value}", "needs a whole number of at least 1, or null")
    rate = settings["max_failure_rate"]
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        yield Problem(f"{PLACE}.max_failure_rate={rate}", "needs a share from 0.0 to 1.0")
    for key, base in BASES.items():
        yield from _component(key, settings[key], base)


def _component(key: str, node: Any, base: str) -> Iterator[Problem]:
    """What is wrong with the sampler or the pruner."""
    place = f"{PLACE}.{key}"
    if not isinstance(node, dict) or "_target_" not in node:
        what = f"has no _target_, the class to make; choose one with hydra/sweeper/{key}=NAME"
        yield Problem(place if isinstance(node, dict) else f"{place}={node}", what)
        return
    try:
        if read(node["_target_"]).derives_from(base) is False:
            yield Problem(f"{place}._target_={node['_target_']}", f"is not a {key} of Optuna's")
            return
    except (TargetNotFound, SyntaxError):
        pass  # part_problems reports it
    grid = node["_target_"].endswith("GridSampler")
    yield from part_problems(place, {**node, "search_space": {}} if grid else node)


def _drawn(space: Space, settings: dict[str, Any]) -> Iterator[Problem]:
    if not space.drawn and not settings["custom_search_space"]:
        what = "nothing to search; give a key a range of values, e.g. 'optimizer.lr=tag(log, interval(1e-4, 1e-1))'"
        yield Problem(f"{PLACE}.params", what)
    sampler = settings["sampler"]
    if isinstance(sampler, dict) and str(sampler.get("_target_")).endswith("GridSampler"):
        for key, each in space.drawn.items():
            if isinstance(each, Interval) and each.values is None:
                what = "a grid needs values that can be counted: range(a, b, step), int(interval(a, b)) or choice"
                yield Problem(f"{key}=interval({each.low:g}, {each.high:g})", what)


def _objective(settings: dict[str, Any], config: dict[str, Any]) -> Objective:
    monitor = config["monitor"]
    metrics = _list(settings["metric"]) or [monitor["metric"]]
    directions = _list(settings["direction"])
    if not directions and metrics == [monitor["metric"]]:
        directions = [monitor["mode"]]
    pruner = settings["pruner"]
    pruned = isinstance(pruner, dict) and not str(pruner.get("_target_")).endswith("NopPruner")
    return Objective(metrics, [DIRECTIONS.get(each, each) for each in directions], pruned)


def _list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _metrics(objective: Objective, config: dict[str, Any]) -> Iterator[Problem]:
    for direction in objective.directions:
        if direction not in DIRECTIONS.values():
            yield Problem(f"{PLACE}.direction={direction}", "must be minimize or maximize")
    monitor = config["monitor"]
    for metric, direction in zip(objective.metrics, objective.directions, strict=False):
        if metric == monitor["metric"] and direction != DIRECTIONS.get(monitor["mode"]):
            what = (
                f"but monitor.mode={monitor['mode']}: the best weights would be the worst; give both the same"
            )
            yield Problem(f"{PLACE}.direction={direction}", what)
    if len(objective.metrics) != len(objective.directions):
        what = f"needs a direction for each metric of {PLACE}.metric={objective.metrics}"
        yield Problem(f"{PLACE}.direction={objective.directions}", what)
    logged = LOGGED.get(config["task"]["_target_"])
    if logged is None:
        return
    known = [name for name in logged if name.startswith("val/")]
    known += [name.replace("val/", "test/") for name in known]
    known.append(config["monitor"]["metric"])
    for metric in objective.metrics:
        if metric not in known:
            close = get_close_matches(metric, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield Problem(
                f"{PLACE}.metric={metric}", f"no result of a job; {hint}there is: {', '.join(known)}"
            )


def _pruning(objective: Objective, settings: dict[str, Any]) -> Iterator[Problem]:
    if not objective.pruned:
        return
    place = f"{PLACE}.pruner"
    if len(objective.metrics) > 1:
        yield Problem(place, "Optuna prunes with one objective only; use hydra/sweeper/pruner=none")
    elif split_of(objective.metrics[0])[0] == "test":
        what = f"{objective.metrics[0]} is known at the end alone; give hydra.sweeper.metric a metric of the validation"
        yield Problem(place, what)
