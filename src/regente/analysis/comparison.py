"""The comparison of runs: rows of configurations, best first, the verdict, and what the reader has to know."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.analysis.groups import Group, Metric, configuration, make_groups, metric_of, short_names, shown
from regente.analysis.run_records import RunRecord, read_runs, select, waiting
from regente.analysis.versions import DIGEST, code_notes, of_seeds
from regente.config.overrides import key_of
from regente.errors import ConfigError, Problem, TrackingError, first_of
from regente.jobs.runs import shown as shown_path

if TYPE_CHECKING:
    from regente.analysis.verdict import Verdict

STATISTICS = ("n", "mean", "sd", "low", "high", "best", "worst", "test")
FIRST_SEEDS = 5  # to propose where nothing is known of the spread


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs by configuration; `sides` has the runs of each name that was given."""

    sides: dict[str, list[RunRecord]]
    metric: Metric
    groups: list[Group]
    by: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()

    @property
    def runs(self) -> list[RunRecord]:
        return list({run.path: run for runs in self.sides.values() for run in runs}.values())

    @property
    def keys(self) -> list[str]:
        """The settings in which the groups differ."""
        return list(self.groups[0].settings) if self.groups else []

    @property
    def names(self) -> dict[str, str]:
        """Short names of the keys."""
        return short_names(self.keys, STATISTICS)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each configuration: its settings by dotted name, and the statistics; None where there is no number."""
        test = self.metric.of_test
        rows = []
        for group in self.groups:
            low, high = group.interval
            numbers = [group.n, group.mean, group.sd, low, high, group.best, group.worst]
            numbers.append(group.mean_of(test) if test else math.nan)
            statistics = dict(
                zip(STATISTICS, (None if math.isnan(each) else each for each in numbers), strict=True)
            )
            best = group.best_run
            rows.append({
                **group.settings, **statistics,
                **{state: group.count(state) for state in ("running", "failed", "stopped", "pruned")},
                "run": shown_path(best.path) if best else None,
            })  # fmt: skip
        return rows

    @cached_property
    def against_best(self) -> "dict[int, Verdict]":
        """The best group against each other one over their seeds, by its place, best first."""
        from regente.analysis.verdict import best_against_others

        return best_against_others(self._ranked)

    @property
    def _ranked(self) -> list[Group]:
        return sorted(self.groups, key=lambda group: (math.isnan(group.mean), -self.metric.sign * group.mean))

    @cached_property
    def verdict(self) -> "Verdict | None":
        """Of the two best groups, or of the best groups of two names; None where there are no two."""
        from regente.analysis.verdict import between

        if len(self.sides) == 2:
            first, second = ([*_named(self, name)] for name in self.sides)
            return between(first[0], second[0], _finished(first) * _finished(second) or 1)
        ranked = self._ranked
        if ranked and ranked[0].n > 1 and 1 in self.against_best:
            return self.against_best[1]
        finished = _finished(ranked)
        return between(ranked[0], ranked[1], finished * (finished - 1) // 2) if finished > 1 else None

    def lines(self) -> list[str]:
        """What is said below the table: the verdict, and what the reader has to know."""
        lines = [str(self.verdict)] if self.verdict else []
        if len(self.sides) != 2 and len(self.against_best) > 1:
            worse = sum(verdict.established for verdict in self.against_best.values())
            lines.append(
                f"{self._ranked[0].label} is established as better than {worse} of {len(self.against_best)} others"
            )
        return [*lines, *self.notes()]

    def notes(self) -> list[str]:
        """What the reader has to know about the numbers, a line each."""
        notes = []
        finished, test = [group for group in self.groups if group.n], self.metric.of_test
        if test and len(finished) > 1:
            best = max(finished, key=lambda group: self.metric.sign * group.mean)
            value = best.mean_of(test)
            said = (
                f"its {test} is {value:.4f} (n={best.n})" if not math.isnan(value) else f"none has a {test}"
            )
            notes.append(
                f"{best.label} is the best of {len(finished)} by {self.metric.name}, which flatters it; {said}"
            )
        if self.by:
            notes.append(
                "rows hold runs that differ in other settings too; an interval is over those and the seeds"
            )
        notes += self._changes()
        for count, what in [
            (sum(group.count("running") for group in self.groups), "still running"),
            (
                sum(waiting(sweep) for sweep in {run.sweep for run in self.runs if run.sweep}),
                "waiting in a sweep",
            ),
            (sum(group.count("failed", "stopped") for group in self.groups), "failed or stopped: left out"),
            (sum(group.count("pruned") for group in self.groups), "pruned: left out"),
            (
                sum(group.repeats for group in self.groups),
                "repeated by a later run of the same seed: left out",
            ),
            (
                sum(len(group.units) - group.n for group in self.groups),
                f"without {self.metric.name}: left out",
            ),
        ]:
            if count:
                notes.append(f"{count} {'run' if count == 1 else 'runs'} {what}")
        if self.damaged:
            notes.append(f"cannot be read: {first_of([*map(shown_path, self.damaged)])}")
        return notes

    def _changes(self) -> Iterator[str]:
        """What is said of data and code that changed between the runs."""
        changed = self.by and any(isinstance(unit, tuple) for group in self.groups for unit in group.units)
        if DIGEST in self.keys or changed:
            where = "rows hold both" if changed else f"{DIGEST} keeps them apart"
            yield f"the data changed between runs of the same settings: {where}"
        if not self.by and any(of_seeds(group.runs) for group in self.groups):
            yield "each seed had data of its own: drawn or split by the seed, or changed between the runs"
        yield from code_notes([list(group.units.values()) for group in self.groups], Path.cwd())

    def more_seeds(self) -> list[str]:
        """The command lines that add the seeds which are missing; none where nothing is missing.

        Raises:
            ConfigError: for groups of runs that differ in more than the seed.
        """
        if self.by:
            raise ConfigError(
                [Problem("--more-seeds", "goes without --by: a seed is added to a configuration")]
            )
        verdict = self.verdict
        # of a configuration whose data changed, the row of the latest data: its new runs will read those
        age = sorted(self.groups, key=lambda group: max(run.age for run in group.runs))
        latest = {configuration(group.runs[0]): group for group in age}.values()
        groups = [group for group in self.groups if group.n and group in latest]
        if verdict is not None and not verdict.established and len(self.sides) != 2:
            groups = groups[:2]
        if not groups:
            return []
        largest = max(group.n for group in groups)
        more = (verdict.more_seeds or 0) if verdict is not None else 0
        wanted = max(largest + more, 1 if verdict is None else FIRST_SEEDS if largest == 1 else 2)
        there = sorted({seed for group in groups for seed in group.by_unit if isinstance(seed, int)})
        seeds = [*there, *range(max(there, default=-1) + 1, max(there, default=-1) + 1 + wanted)]
        return [line for group in groups if (line := _command(group, seeds, wanted - group.n))]


def _finished(groups: Sequence[Group]) -> int:
    return sum(group.n > 0 for group in groups)


def _named(whole: Comparison, name: str) -> Iterator[Group]:
    """The groups of a name, best first, under that name; with their settings where it has several configurations."""
    groups = make_groups(whole.sides[name], whole.metric, whole.by)
    for group in groups:
        yield replace(group, name=f"{name} ({group.label})" if len(groups) > 1 else name)


def _command(group: Group, seeds: Sequence[int], count: int) -> str:
    new = [seed for seed in seeds if seed not in group.by_unit][: max(0, count)]
    if not new:
        return ""
    run = group.runs[-1]
    words = [word for word in run.overrides if key_of(word) != "seed"]
    if "--config-dir" in run.command[:-1]:
        words += ["--config-dir", run.command[run.command.index("--config-dir") + 1]]
    many = ["-m"] if len(new) > 1 else []
    return shlex.join(["regente", "train", run.experiment, *many, *words, f"seed={','.join(map(str, new))}"])


def compare(
    names: Sequence[str],
    project: Path,
    *,
    metric: str | None = None,
    by: Sequence[str] = (),
    sort: str | None = None,
) -> Comparison:
    """Compare the runs of names; see `select`.

    Raises:
        TrackingError: when a name matches nothing, or no run can be read.
        ConfigError: for a metric, or a key to group or sort by, that no run has.
    """
    sides: dict[str, list[RunRecord]] = {}
    damaged: list[Path] = []
    for name, paths in select(names, project).items():
        sides[name], bad = read_runs(paths)
        damaged += bad
    if not any(sides.values()):
        raise TrackingError(f"{first_of([*map(shown_path, damaged)])}: damaged; name other runs")
    return compare_runs({name: runs for name, runs in sides.items() if runs}, metric, by, sort, damaged)


def compare_runs(
    sides: Mapping[str, Sequence[RunRecord]],
    metric: str | None = None,
    by: Sequence[str] = (),
    sort: str | None = None,
    damaged: Sequence[Path] = (),
) -> Comparison:
    """Compare runs that are read already."""
    runs = list({run.path: run for side in sides.values() for run in side}.values())
    chosen = metric_of(runs, metric)
    found = Comparison(
        {name: list(side) for name, side in sides.items()}, chosen, make_groups(runs, chosen, by), tuple(by),
        tuple(dict.fromkeys(damaged)),
    )  # fmt: skip
    if sort:
        _sort(found, sort)
    return found


def _sort(found: Comparison, sort: str) -> None:
    """Sort the groups by a key (`-key`: the other way round), or by a statistic, best first."""
    name, reverse = sort.removeprefix("-"), sort.startswith("-")
    by_short = {short: key for key, short in found.names.items()}
    key = by_short.get(name, name)
    if key not in (*found.keys, *STATISTICS):
        there = ", ".join([*found.names.values(), *STATISTICS])
        raise ConfigError([Problem(f"--sort {sort}", f"no such column; there is: {there}")])
    best_first = key == "n" or (
        found.metric.sign > 0 and key in ("mean", "best", "worst", "test", "low", "high")
    )
    values = {group: row[key] for group, row in zip(found.groups, found.rows(), strict=True)}
    known = [group for group in found.groups if values[group] is not None]
    numbers = all(isinstance(values[group], int | float) for group in known)
    known.sort(
        key=lambda group: values[group] if numbers else shown(values[group]), reverse=best_first != reverse
    )
    found.groups[:] = [*known, *(group for group in found.groups if values[group] is None)]


def as_json(found: Comparison) -> str:
    """All of a comparison for a program."""
    verdict = found.verdict
    content: dict[str, Any] = {
        "metric": found.metric.name, "mode": found.metric.mode, "rows": found.rows(), "notes": found.notes(),
        "verdict": None,
    }  # fmt: skip
    if verdict is not None:
        tested = verdict.difference
        content["verdict"] = {
            "text": str(verdict), "first": verdict.first, "second": verdict.second, "metric": verdict.metric,
            "established": verdict.established, "comparisons": verdict.comparisons, "more_seeds": verdict.more_seeds,
            **({"effect": tested.effect, "low": tested.low, "high": tested.high, "p": tested.p,
                "p_corrected": verdict.p, "n": tested.n, "method": tested.method} if tested else {}),
        }  # fmt: skip
    return json.dumps(content, indent=1, default=str)
