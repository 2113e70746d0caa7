"""Finds a run by name, from the job directories alone, without torch or MLflow.

runs/digits_cnn/20260101-120000-0a1b2c    a job directory, or its last part
latest                                    the one that was started last
best                                      the best of all, by what they monitor
digits_cnn, digits_cnn:best               the latest of an experiment, or its best
0a1b2c3d                                  an MLflow run id, or a unique beginning of it
"""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regente.errors import CheckpointError, RegenteError, TrackingError, first_of
from regente.jobs.found_files import parse_json, read_text
from regente.jobs.job import FITTED_STATE, Job, open_job, read_json
from regente.jobs.result import read_result

SHOWN = 5  # candidates that an error lists
SMOKE_TEST = "smoke_test"  # the folder of the short jobs that try a sweep
EVALUATION = "evaluation-"  # prefix of the directories of evaluations, which lie in that of their run


@dataclass(frozen=True)
class Run:
    """A job that has finished, with its result."""

    job: Job
    result: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        """The best weights; the job directory may have been moved.

        Raises:
            CheckpointError: when none were kept, or the file is gone.
        """
        if (file := best_weights(self.job, self.result)) is None:
            untrained = self.result.get("epochs") == 0
            what = (
                "has trained for no epoch" if untrained else "kept no weights; train with callbacks=default"
            )
            raise CheckpointError(f"{shown(self.job.path)}: the run {what}")
        if not _is_file(file):
            raise CheckpointError(f"{shown(file)}: no such checkpoint; restore it, or name another run")
        return file

    @property
    def fitted_state(self) -> dict[str, Any] | None:
        """What its data module computed from the training samples; None if that is nothing.

        Raises:
            CheckpointError: when that file is damaged.
        """
        file = self.job.path / FITTED_STATE
        if not file.is_file():
            return None
        with suppress(OSError, ValueError, RecursionError):
            if isinstance(found := parse_json(read_text(file)), dict):
                return found
        raise CheckpointError(f"{shown(file)}: damaged; restore it, or name another run")

    @property
    def metrics(self) -> dict[str, float]:
        """The validation and test metrics of its best weights, by name: `val/acc`."""
        return dict(self.result.get("metrics") or {})

    @property
    def run_id(self) -> str:
        """The id of its run in MLflow; empty where it has none."""
        return run_id(self.job.path)

    @property
    def monitor(self) -> tuple[str, str]:
        """The monitored metric, and `min` or `max`."""
        monitor = self.result.get("monitor") or {}
        return str(monitor.get("metric")), str(monitor.get("mode"))

    @property
    def score(self) -> float:
        """The monitored metric of the best weights, negated if less is better; NaN if there is none."""
        metric, mode = self.monitor
        value = float(self.result.get("metrics", {}).get(metric, math.nan))
        return -value if mode == "min" else value


def best_weights(job: Job, result: dict[str, Any]) -> Path | None:
    """The file of the best weights, which may have been deleted; None where none were kept.

    The result names it as it was when the run ended; the job directory may have been moved.
    """
    best = result.get("best_checkpoint")
    if not best or not isinstance(best, str):
        return None
    here = job.checkpoints / Path(best).name
    return Path(best) if _is_file(Path(best)) and not _is_file(here) else here


def find(name: str, project: Path) -> Run:
    """The finished run of a name in a project, which is the folder that holds `runs/`.

    Raises:
        TrackingError: when the name matches no run, or several; the message lists candidates.
    """
    path = _find(name, project, _is_finished)
    if not _is_finished(path):
        raise TrackingError(
            f"run {name}: it has not finished: no {shown(path)}/result.json; name another run"
        )
    job, result = open_job(path), read_result(path)
    if not result:
        raise RegenteError(f"{shown(path)}/result.json: damaged; restore it, or name another run")
    return Run(job, result)


def find_job(name: str, project: Path) -> Job:
    """The run of a name, finished or not; `best` and `EXPERIMENT:best` are finished runs.

    Raises:
        TrackingError: when the name matches no run, or several; the message lists candidates.
    """
    return open_job(_find(name, project, lambda _: True))


def best_of_sweep(path: Path) -> Run:
    """The best finished job of a sweep, by its directory.

    Raises:
        TrackingError: when no job has finished, or none has the metric.
    """
    best = _best(shown(path), [each for each in job_directories(path) if each != path])
    return Run(open_job(best), read_result(best))


def names(project: Path) -> list[str]:
    """Names of finished runs, for tab completion; single runs by their directories."""
    runs = project / "runs"
    finished = [path for path in job_directories(runs) if _is_finished(path)]
    experiments = sorted({path.relative_to(runs).parts[0] for path in finished})
    whole = [name for experiment in experiments for name in (experiment, f"{experiment}:best")]
    return ["latest", "best", *whole, *(str(path.relative_to(project)) for path in finished)]


def job_names(project: Path) -> list[str]:
    """Names of runs to resume, finished or not, for tab completion."""
    runs = project / "runs"
    there = job_directories(runs)
    jobs = sorted(set(there) - sweeps_among(there))
    experiments = sorted({path.relative_to(runs).parts[0] for path in jobs})
    return ["latest", *experiments, *(str(path.relative_to(project)) for path in jobs)]


def run_id(path: Path) -> str:
    """The id of a job's run in MLflow; empty if it has none."""
    return str(read_json(path / "recorded.json").get("run_id") or "")


def shown(path: Path) -> str:
    """A path relative to the working directory if it lies in it."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _find(name: str, project: Path, wanted: Callable[[Path], bool]) -> Path:
    """The directory of the job; `latest` and the name of an experiment choose among those that `wanted` accepts."""
    runs = project / "runs"
    if name and ((project / name) / "job.json").is_file():
        return _no_sweep(name, project / name, job_directories(project / name))
    there = job_directories(runs)
    sweeps = sweeps_among(there)
    jobs = [path for path in there if path not in sweeps]
    experiment, _, which = name.partition(":")
    if experiment in ("latest", "best") and not which:
        return _best(name, jobs) if name == "best" else _latest(name, jobs, wanted)
    if which in ("", "best", "latest") and experiment not in ("", ".", "..") and (runs / experiment).is_dir():
        jobs = [path for path in jobs if path.is_relative_to(runs / experiment)]
        return _best(name, jobs) if which == "best" else _latest(name, jobs, wanted)
    if named := [path for path in there if path.name == name]:
        found = named
    else:
        found = [path for path in there if name and run_id(path).startswith(name)]
    if len(found) == 1:
        return _no_sweep(name, found[0], there)
    if found:
        what = f"{len(found)} runs have this name" if named else f"{len(found)} runs begin with it"
        raise TrackingError(
            f"run {name}: {what}; write more of it: {first_of([*map(shown if named else run_id, found)])}"
        )
    raise TrackingError(f"run {name}: no such run here; {_candidates(name, jobs, runs)}")


def job_directories(folder: Path) -> list[Path]:
    """The directories of all jobs in a folder, sorted, without evaluations and smoke tests."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "checkpoints", EVALUATION)) and name != SMOKE_TEST
        ]
        if "job.json" in files:
            found.append(Path(place))
    return sorted(found)


def _is_file(path: Path) -> bool:
    """Whether there is a file; also of a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113


def _is_finished(path: Path) -> bool:
    return (path / "result.json").is_file()


def sweeps_among(directories: Sequence[Path]) -> set[Path]:
    """The directories of sweeps, which hold other jobs or will hold some."""
    holding = {path.parent for path in directories}
    return {path for path in directories if path in holding or path.name.startswith("sweep-")}


def _no_sweep(name: str, path: Path, directories: Sequence[Path]) -> Path:
    if path not in sweeps_among(directories):
        return path
    jobs = [other for other in directories if other.parent == path]
    which = f"name one of its jobs: {first_of([*map(shown, jobs)])}" if jobs else "it has no jobs yet"
    raise TrackingError(f"run {name}: a sweep; {which}")


def _latest(name: str, paths: Sequence[Path], wanted: Callable[[Path], bool]) -> Path:
    return _newest(_jobs(name, paths, wanted))


def _jobs(name: str, paths: Sequence[Path], wanted: Callable[[Path], bool]) -> dict[Path, Job]:
    """The jobs in the directories that are wanted; a damaged one, or one of another version, hides no other."""
    candidates = [path for path in paths if wanted(path)]
    found = {}
    for path in candidates:
        with suppress(RegenteError):
            found[path] = open_job(path)
    if candidates and not found:
        open_job(candidates[-1])  # says what is wrong with it
    if not found:
        number = f"none of {len(paths)} has finished" if paths else "there is no run"
        raise TrackingError(f"run {name}: {number}; regente train makes one")
    return found


def _newest(jobs: dict[Path, Job]) -> Path:
    return max(jobs, key=lambda path: (jobs[path].order, jobs[path].created, _written(path)))


def _written(path: Path) -> int:
    """When its result was written, or else its start: orders jobs of the same second."""
    file = path / "result.json" if _is_finished(path) else path / "job.json"
    return file.stat().st_mtime_ns


def _best(name: str, paths: Sequence[Path]) -> Path:
    """The best of comparable runs: those with the same data and the same monitored metric."""
    jobs = _jobs(name, paths, _is_finished)
    latest = _newest(jobs)
    runs = [Run(job, read_result(path)) for path, job in jobs.items()]
    if name == "best" and len({(run.monitor, run.job.choices.get("data")) for run in runs}) > 1:
        experiments = dict.fromkeys(f"{run.job.experiment}:best" for run in runs)
        raise TrackingError(
            "run best: runs of different data or metrics cannot be compared; choose one of: "
            f"{first_of([*experiments])}"
        )
    monitor = next(run.monitor for run in runs if run.job.path == latest.resolve())
    scored = [run for run in runs if run.monitor == monitor and not math.isnan(run.score)]
    if not scored:
        raise TrackingError(f"run {name}: no run has a {monitor[0]}; name another one, or latest")
    return max(scored, key=lambda run: (run.score, run.job.order, run.job.created)).job.path


def _candidates(name: str, jobs: Sequence[Path], runs: Path) -> str:
    finished = sorted(filter(_is_finished, jobs), key=lambda path: path.name, reverse=True)
    if not finished:
        return "there are no finished runs yet; regente train makes one"
    experiments = sorted({path.relative_to(runs).parts[0] for path in finished})
    close = get_close_matches(name.partition(":")[0], ["latest", "best", *experiments], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    more = ", ".join(f"{experiment}:best" for experiment in experiments[:SHOWN])
    return f"{hint}there is: latest, {first_of([*map(shown, finished)])}; {more}"
