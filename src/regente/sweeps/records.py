"""The records of a sweep: its own run in MLflow, the parent of its jobs' runs, and tables of the results."""

import csv
import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from regente.analysis.comparison import compare
from regente.analysis.description import describe_sweep
from regente.analysis.write_report import write_sweep_report
from regente.config.compose import Composed
from regente.config.discovery import extra_dirs
from regente.config.environment import env_references, externalize
from regente.config.redaction import Redactor, secret_values
from regente.errors import ConfigError
from regente.jobs.job import PROCESS, Job, open_job
from regente.jobs.runs import run_id, shown
from regente.jobs.trust import made_by_user, require_own_job
from regente.sweeps.plan import Plan, label, swept_overrides, varied
from regente.sweeps.state import JobState, Queue, SweepFolder
from regente.tracking.journal import read
from regente.tracking.recorder import SWEEP, Recorder, RecordingResult
from regente.training.prepare import freeze


@dataclass(frozen=True)
class SeedGroup:
    """Jobs that differ in their seed alone."""

    overrides: list[str]
    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """The sample standard deviation."""
        return statistics.stdev(self.values)


def make_folder(plan: Plan, first: Composed) -> SweepFolder:
    """The sweep's own job directory, made at its first start with the config of its first job."""
    if (plan.folder / "job.json").is_file():
        require_own_job(open_job(plan.folder), Path.cwd())
    else:
        whole = replace(first, overrides=plan.overrides)
        job = freeze(whole, plan.folder.parent, plan.folder.name, plan.swept)
        if job.path.name != plan.folder.name:  # another command line was faster
            shutil.rmtree(job.path)
    return SweepFolder(plan.folder.resolve())


def job_directory(folder: SweepFolder, state: JobState, composed: Composed, swept: Sequence[str]) -> Job:
    """The directory of a job that is to start: a new one, or that of its attempt before, which it continues."""
    path = folder.path / state.directory
    (path / PROCESS).unlink(missing_ok=True)  # of the attempt before
    if (path / "job.json").is_file():
        os.environ.update(externalize(composed.yaml())[1])  # secrets, which the frozen config does not hold
        return require_own_job(open_job(path), Path.cwd())
    return freeze(composed, folder.path, state.directory, swept=swept)


def seed_groups(states: Sequence[JobState], swept: Sequence[str]) -> list[SeedGroup]:
    """Jobs that differ in `seed` alone, where there is more than one."""
    found: dict[tuple[str, ...], list[float]] = {}
    swept = varied([state.overrides for state in states], swept)
    for state in states:
        words = [word for word in swept_overrides(state.overrides, swept) if not word.startswith("seed=")]
        if state.state == "done" and state.value is not None:
            found.setdefault(tuple(words), []).append(state.value)
    return [SeedGroup(list(words), values) for words, values in found.items() if len(values) > 1]


def best_of(states: Sequence[JobState], mode: str) -> JobState | None:
    """The job with the best monitored metric."""
    done = [state for state in states if state.state == "done" and state.value is not None]
    return (max if mode == "max" else min)(done, key=lambda state: state.value or 0.0, default=None)


class Parent:
    """The sweep's own run in MLflow, from its first job to its last; later sessions continue it."""

    def __init__(self, job: Job, config: dict[str, Any], swept: Sequence[str]) -> None:
        self.job, self.swept, self.monitor = job, swept, config["monitor"]
        redact = Redactor(secret_values(config), env_references(job.config))
        self.recorder = Recorder(job, config, 0, redact, kind="sweep")
        self.notes = redact.text(str(config["tracking"].get("notes") or ""))

    @cached_property
    def environment(self) -> dict[str, str]:
        """Variables that tell the jobs that this run's shipper ships their journals too."""
        ships = self.recorder.shipper is not None and made_by_user(self.job)  # where keys are kept
        return {SWEEP: str(self.job.path)} if ships else {}

    def finish(self, states: Sequence[JobState], stopped: bool, figures: dict[str, Any]) -> RecordingResult:
        """Record the counts, the best job, mean and spread over seeds, and the tables; then end the run."""
        journal, metric = self.recorder.journal, self.monitor["metric"]
        failed = sum(state.state == "failed" for state in states)
        values: dict[str, float] = {
            "sweep/jobs": len(states),
            "sweep/done": sum(state.state == "done" for state in states),
            "sweep/failed": failed,
            "sweep/pruned": sum(state.pruned for state in states),
        }
        tags = {"regente.objective": f"{metric} ({self.monitor['mode']})"}
        if best := best_of(states, self.monitor["mode"]):
            assert best.value is not None
            values[f"best/{metric}"] = best.value
            varied_keys = varied([state.overrides for state in states], self.swept)
            tags["regente.best"] = label(best.overrides, varied_keys)
            tags["regente.best_run"] = run_id(self.job.path / best.directory)
        groups = seed_groups(states, self.swept)
        if groups:
            winner = (max if self.monitor["mode"] == "max" else min)(groups, key=lambda group: group.mean)
            values |= {f"best_mean/{metric}": winner.mean, f"best_spread/{metric}": winner.spread}
            tags["regente.best_over_seeds"] = f"{' '.join(winner.overrides)} (n={len(winner.values)})"
        journal.write("tags", values={key: value for key, value in tags.items() if value})
        # a session after a driver that was killed here finds them recorded
        known = [line["values"] for line in read(self.job.journal, 0)[0] if line["kind"] == "metrics"]
        recorded = {key: value for each in known for key, value in each.items()}
        if new := {key: value for key, value in values.items() if recorded.get(key) != value}:
            journal.write("metrics", step=self.recorder.attempt, values=new)
        for file in write_tables(self.job.path, states, groups, self.swept, metric):
            journal.artifact(file, "sweep")
        for name, figure in figures.items():
            file = self.job.path / "figures" / f"{name}.png"
            file.parent.mkdir(exist_ok=True)
            figure.savefig(file)
            journal.artifact(file, "figures")
        self._report()
        return self.recorder.finish("KILLED" if stopped else "FAILED" if failed else "FINISHED")

    def _report(self) -> None:
        """The report on the sweep; a tag says why if it cannot be made, which does not end a sweep."""
        try:
            found = compare([str(self.job.path)], Path.cwd())
            self.recorder.journal.artifact(write_sweep_report(found, self.job.path), "")
            self.recorder.journal.write("description", text=describe_sweep(found, self.job.path, self.notes))
        except Exception as error:
            what = f"not made: {type(error).__name__}: {str(error)[:500]}"
            self.recorder.journal.write("tags", values={"regente.report": what})


def recording_lines(recorded: RecordingResult | None) -> list[str]:
    """Where the sweep's run is in MLflow, what that took at the end, and what is missing there."""
    if recorded is None:
        return []
    took = f" (recording took {recorded.seconds:.1f} s at the end)" if recorded.seconds > 1 else ""
    where = f"sweep {recorded.run_id} in MLflow; to compare its runs: regente ui{took}"
    return [where] * bool(recorded.run_id) + [f"tracking: {recorded.reason}"] * bool(recorded.reason)


def write_tables(
    folder: Path, states: Sequence[JobState], groups: Sequence[SeedGroup], swept: Sequence[str], metric: str
) -> list[Path]:
    """`jobs.csv`, and `seeds.csv` where jobs differ in their seed alone."""
    swept = varied([state.overrides for state in states], swept)
    rows: list[list[object]] = [
        [state.id, state.state, state.value, f"{state.seconds:.1f}", label(state.overrides, swept)]
        for state in states
    ]
    tables = {"jobs.csv": (["job", "state", metric, "seconds", "overrides"], rows)}
    if groups:
        means: list[list[object]] = [[" ".join(g.overrides), len(g.values), g.mean, g.spread] for g in groups]
        tables["seeds.csv"] = (["overrides", "n", f"mean {metric}", f"spread {metric}"], means)
    for name, (header, content) in tables.items():
        draft = folder / f".{name}.{os.getpid()}"
        with draft.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *content])
        draft.replace(folder / name)
    return [folder / name for name in tables]


def sweeps(project: Path) -> list[Path]:
    """The directories of all sweeps, the one that was started last at the end."""
    found = [file.parent for file in (project / "runs").glob("*/sweep-*/queue.json")]
    return sorted(found, key=lambda path: (path / "queue.json").stat().st_mtime_ns)


def find_sweep(name: str, project: Path) -> SweepFolder:
    """The sweep that a name means: its directory, the name of it, an experiment (its latest), or `latest`.

    Raises:
        ConfigError: when there is none of that name; the message lists the latest ones.
    """
    every = sweeps(project)
    if name == "latest":
        found = every
    else:
        place = (project / name).resolve()
        found = [path for path in every if place == path.resolve() or name in (path.name, path.parent.name)]
    if not found:
        there = ", ".join(f"{path.parent.name}/{path.name}" for path in reversed(every[-5:]))
        raise ConfigError(
            f"sweep {name}: no such sweep here; there is: {there or 'none yet, regente train -m makes one'}"
        )
    return SweepFolder(found[-1])


def write_queue(
    plan: Plan, folder: SweepFolder, config: dict[str, Any], redact: Redactor, total: int | None
) -> None:
    """Write the command line, without its secrets, and the jobs that are known."""
    queue = Queue(
        experiment=plan.experiment,
        overrides=[redact.text(word) for word in plan.overrides],
        swept=plan.swept,
        monitor=config["monitor"],
        total=total,
        jobs={id_: [redact.text(word) for word in trial.overrides] for id_, trial in plan.jobs},
        config_dirs=[shown(path.resolve()) for path in extra_dirs],
        pins=plan.composer.pins,
    )
    folder.write_queue(queue)


def redactor(plan: Plan, config: dict[str, Any]) -> Redactor:
    """Removes secrets from the overrides of a sweep; `config` is that of its first job."""
    return Redactor(secret_values(config), env_references(plan.base.yaml()))
