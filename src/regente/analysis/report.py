"""`regente report`: a document on a sweep or on several runs. What comes out of a run is text, and is escaped."""

import math
import os
import shlex
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from regente.analysis.comparison import Comparison
from regente.analysis.document import Block, Code, Document, Figure, Figures, Section, Table, Text
from regente.analysis.flat_config import SEED
from regente.analysis.formats import cells, number
from regente.analysis.groups import Group, setting, shown
from regente.analysis.importance import importance
from regente.analysis.predictions import FILE, read_arrays
from regente.analysis.run_records import RunRecord
from regente.analysis.svg import Curve, confusion, curves, parallel, slice_of, thinned
from regente.jobs.job import DATA, PROVENANCE, read_json
from regente.jobs.result import split_of
from regente.jobs.runs import shown as shown_path
from regente.tracking.journal import read

MOST_ROWS, MOST_RUNS = 60, 500  # of a table
CURVES, MATRICES, SLICES = 6, 3, 9  # configurations in a figure; confusion matrices; settings
NUMBERED = 20  # classes that a confusion matrix has room for


def make_report(found: Comparison, *, fast: bool = False) -> Document:
    """The document on a comparison; `fast`: see importance."""
    done = [run for run in found.runs if run.state == "done"]
    sections = [
        Section("Question", _question(found)),
        Section("Result", _result(found)),
        Section("Curves", list(_curves(found))),
        Section("Settings", list(_settings(found, done, fast=fast))),
        Section("Confusion matrices", list(_confusions(found))),
        Section("Cost", [_cost(found)]),
        Section("How to reproduce it", _reproduce(found)),
    ]
    experiments = ", ".join(dict.fromkeys(run.experiment for run in found.runs))
    return Document(f"{experiments}: {found.metric.name}", [each for each in sections if each.blocks])


def _question(found: Comparison) -> list[Block]:
    """The command lines, and what is compared."""
    sweeps = list(dict.fromkeys(run.sweep for run in found.runs if run.sweep))
    commands = [read_json(sweep / "job.json").get("command") for sweep in sweeps]
    lines = [shlex.join(map(str, words)) for words in commands if isinstance(words, list) and words]
    lines += dict.fromkeys(shlex.join(run.command) for run in found.runs if not run.sweep)
    states = [f"{sum(run.state == state for run in found.runs)} {state}" for state in
              dict.fromkeys(run.state for run in found.runs)]  # fmt: skip
    better = "less is better" if found.metric.sign < 0 else "more is better"
    keys = ", ".join(found.keys) or "nothing but the seed"
    what = f"{len(found.runs)} runs ({', '.join(states)}), which differ in {keys}. Metric: {found.metric.name}, {better}."
    return [Code(lines[:20]), Text(what)]


def _result(found: Comparison) -> list[Block]:
    header, rows, _ = cells(found, MOST_ROWS)
    caption = f"Configurations, best first: {found.metric.name} of the best weights of each run"
    if len(found.groups) > MOST_ROWS:
        caption += f"; {MOST_ROWS} of {len(found.groups)}"
    return [*(Text(line) for line in found.lines()), Table(caption, header, rows)]


def _curves(found: Comparison) -> Iterator[Block]:
    """The monitored metric and the losses over the steps, a line for each of the best configurations."""
    groups = [group for group in found.groups if group.units][:CURVES]
    split, rest = split_of(found.metric.name)
    val = found.metric.name.replace(split, "val", 1) if split == "test" and rest else found.metric.name
    histories = {group: [_history(run) for run in group.units.values()] for group in groups}
    drawn = []
    for name in dict.fromkeys([val, "train/loss", "val/loss"]):
        lines = [_mean_curve(group.label, [history.get(name, {}) for history in histories[group]])
                 for group in groups]  # fmt: skip
        if not all(lines) or not lines:
            continue
        ends = "; ".join(f"{each.name} ends at {number(each.mean[-1])}" for each in lines if each)
        text = f"{name} over the steps"
        svg = curves(text, ends, [each for each in lines if each], "step", name)
        drawn.append(Figure(svg, f"{text}: mean over the seeds, band of one standard deviation"))
    if drawn:
        yield Figures(drawn, [group.label for group in groups])


def _history(run: RunRecord) -> dict[str, dict[int, float]]:
    """What a run logged: by metric, the value of each step."""
    found: dict[str, dict[int, float]] = {}
    with suppress(OSError):
        for line in read(run.path / "journal.jsonl", 0)[0]:
            step, values = line.get("step"), line.get("values")
            if line["kind"] == "metrics" and isinstance(step, int) and isinstance(values, dict):
                for name, value in values.items():
                    if isinstance(value, int | float) and math.isfinite(value):
                        found.setdefault(name, {})[step] = float(value)
    return found


def _mean_curve(name: str, runs: Sequence[dict[int, float]]) -> Curve | None:
    """Mean and standard deviation at the steps that more than half of the runs have."""
    counts: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.items():
            counts.setdefault(step, []).append(value)
    steps = sorted(step for step, values in counts.items() if 2 * len(values) > len(runs))
    steps = [steps[place] for place in thinned(steps)]
    if not steps:
        return None
    means = [statistics.fmean(counts[step]) for step in steps]
    sds = [statistics.stdev(counts[step]) if len(counts[step]) > 1 else 0.0 for step in steps]
    low, high = ([mean + sign * sd for mean, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
    return Curve(name, [float(step) for step in steps], means, low, high)


def _settings(found: Comparison, done: Sequence[RunRecord], *, fast: bool) -> Iterator[Block]:
    """Importance, parallel coordinates and slices."""
    runs = [run for run in done if found.metric.name in run.metrics]
    if len(runs) < 3 or not found.keys:
        return
    what = importance(runs, found.metric, fast=fast)
    if what.effects:
        rows = [
            [each.key, "-" if each.share is None else f"{each.share:.0%}", each.levels[0][0],
             number(each.levels[0][1]), each.levels[-1][0], number(each.levels[-1][1]),
             f"dead in {each.dead} pairs" if each.dead else ""]
            for each in what.effects
        ]  # fmt: skip
        header = ["setting", "share", "best value", "mean there", "worst value", "mean there", "note"]
        yield Table(
            f"Share of the variance of {what.metric.name} in {what.n} runs: {what.method}", header, rows
        )
    for a, b, share, p in what.interactions:
        yield Text(
            f"{a} and {b} act together: {share:.0%} of the variance beyond their own effects (p={p:.2g})."
        )
    names = found.names
    columns = {key: [_plain(setting(run, key)) for run in runs] for key in found.keys}
    values = [run.metrics[found.metric.name] for run in runs]
    svg = parallel(
        {names[key]: column for key, column in columns.items()}, values, found.metric.name,
        less_is_better=found.metric.sign < 0,
    )  # fmt: skip
    yield Figures([Figure(svg, "Each line is a run; the better it is, the stronger its line")], wide=True)
    labels = [" ".join(f"{names[key]}={shown(setting(run, key))}" for key in found.keys) for run in runs]
    yield Figures([
        Figure(slice_of(names[key], column, values, labels, found.metric.name), f"{key}: a point is a run, the line the means")
        for key, column in list(columns.items())[:SLICES]
    ])  # fmt: skip


def _plain(value: Any) -> float | str:
    """A number as it is, other values as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else shown(value)


def _confusions(found: Comparison) -> Iterator[Block]:
    """Of the test samples: the best run of each of the best configurations."""
    drawn = []
    for group in found.groups[:MATRICES]:
        if group.best_run and (counts := _counts(group.best_run)):
            names, rows = counts
            title = f"Confusion matrix of {group.label}"
            text = f"{group.label}, the best run: rows are true classes, columns predicted ones"
            drawn.append(Figure(confusion(title, rows, names), text))
    if drawn:
        yield Figures(drawn)


def _counts(run: RunRecord) -> tuple[list[str], list[list[int]]] | None:
    """Names of the classes, and how often each was predicted as each; None where that is not known."""
    import numpy as np

    with suppress(OSError, ValueError):
        found = read_arrays(run.path / FILE, ["label", "prediction"], optional=["names"])
        label, prediction = found["label"], found["prediction"]
        names = [str(name) for name in found["names"].ravel()] if "names" in found else []
        whole = all(each.dtype.kind in "iu" for each in (label, prediction))
        if not whole or label.ndim != 1 or not label.size:
            return None
        size = max(len(names), int(label.max()) + 1, int(prediction.max()) + 1)
        if size > NUMBERED or min(label.min(), prediction.min()) < 0:
            return None
        counts = np.zeros((size, size), int)
        np.add.at(counts, (label, prediction), 1)
        return (names if len(names) == size else [str(place) for place in range(size)]), counts.tolist()
    return None


def _cost(found: Comparison) -> Block:
    rows = [_costs(group) for group in found.groups[:MOST_ROWS] if group.units]
    header = ["configuration", "runs", "seconds in all", "seconds a run", "samples/s", "peak MB"]
    energy = any(row[-1] for row in rows)
    rows = [row if energy else row[:-1] for row in rows]
    total = sum(run.seconds or 0.0 for run in found.runs)
    caption = f"Time of the trainings: {total:,.0f} s in all" + (
        "" if energy else "; no run logged its energy"
    )
    return Table(caption, [*header, "energy"] if energy else header, rows)


def _costs(group: Group) -> list[str]:
    runs = list(group.units.values())
    seconds = [run.seconds for run in runs if run.seconds is not None]
    speed, peak = (
        [value for run in runs if isinstance(value := run.result.get(key), int | float)]
        for key in ("samples_per_second", "peak_megabytes")
    )
    energy = [
        f"{name.rpartition('/')[2]} {points[max(points)]:.4g}"
        for run in runs[:1]
        for name, points in _history(run).items()
        if "energy" in name.lower()
    ]
    means = [f"{statistics.fmean(values):,.1f}" if values else "-" for values in (seconds, speed, peak)]
    return [group.label, str(len(runs)), f"{sum(seconds):,.1f}", *means, ", ".join(energy)]


def _reproduce(found: Comparison) -> list[Block]:
    """For each run its command, the commit of its code and the digest of its data."""
    rows, folder = [], os.path.commonpath([run.path.parent for run in found.runs])
    for run in sorted(found.runs, key=lambda run: (run.experiment, run.number or 0, run.age))[:MOST_RUNS]:
        facts, data = read_json(run.path / PROVENANCE), read_json(run.path / DATA)
        code = facts.get("code", {})
        commit = str(code.get("commit") or "-")[:12] + ("+ changes.patch" if code.get("patch") else "")
        value = "-" if run.value is None else number(run.metrics.get(found.metric.name, math.nan))
        rows.append(
            [
                str(run.path.relative_to(folder)),
                _command(run),
                commit,
                str(data.get("digest") or "-")[:12],
                value,
            ]
        )
    header = ["run", "command", "commit", "data digest", found.metric.name]
    caption = f"Runs in {shown_path(Path(folder))}: the command of each, the commit of its code, the digest of its data"
    text = (
        "regente rerun RUN repeats a run and names what has changed since; RUN/config.yaml is its whole config, "
        f"RUN/provenance.json its packages and hardware. Made by Regente {version('regente')}."
    )
    return [Table(caption, header, rows), Text(text)]


def _command(run: RunRecord) -> str:
    seed = (
        []
        if run.seed is None or any(word.startswith(f"{SEED}=") for word in run.overrides)
        else [f"{SEED}={run.seed}"]
    )
    return shlex.join(["regente", "train", run.experiment, *run.overrides, *seed])
