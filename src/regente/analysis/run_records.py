"""Runs as plain records, read out of their job directories, which may come from anybody: nothing of them is executed.

Reading takes 0.4 ms for a run. What only one command needs (`journal.jsonl`, `trace.jsonl`, `test.npz`)
is read by that command, from `RunRecord.path`.
"""

import atexit
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from regente.analysis.flat_config import SEED, config_with_references
from regente.errors import TrackingError
from regente.jobs.found_files import read_text
from regente.jobs.job import DATA, PROCESS, PROVENANCE, QUEUE, fits, read_as, read_json
from regente.jobs.result import read_result
from regente.jobs.runs import find_job, job_directories, sweeps_among

FACTS = {  # of job.json
    "experiment": str, "overrides": list[str], "command": list[str], "choices": dict[str, str],
    "swept": list[str], "created": str,
}  # fmt: skip
REMOTE_SECONDS = 300  # a run on another machine counts as running if it was touched since


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run, finished or not."""

    path: Path
    experiment: str
    overrides: list[str]
    command: list[str]
    choices: dict[str, str]  # the option of each config group
    swept: list[str]  # keys that its sweep varies
    created: str  # UTC, ISO 8601; by a clock that may have gone back
    state: str  # done, pruned, running, failed, stopped
    config: dict[str, Any]  # settings by dotted name, see flat_config
    references: frozenset[str] = frozenset()  # settings that take their value from another one
    order: int = 0  # among the runs of a project, see jobs/job.py; 0 of a run from before there was one
    sweep: Path | None = None
    number: int | None = None  # in its sweep, as the table of the sweep shows it
    metrics: dict[str, float] = field(default_factory=dict)  # of the best weights; those that are finite
    seconds: float | None = None  # of the training
    data: str = ""  # digest of its data; empty where that is not known
    result: dict[str, Any] = field(default_factory=dict)  # see jobs/result.py

    @property
    def seed(self) -> int | None:
        """The seed; None where the config has none."""
        seed = self.config.get(SEED)
        return seed if isinstance(seed, int) else None

    @property
    def monitor(self) -> tuple[str, str]:
        """The monitored metric, and `min` or `max`."""
        found = self.result.get("monitor") or {}
        metric, mode = (found.get(key, self.config.get(f"monitor.{key}")) for key in ("metric", "mode"))
        return str(metric), str(mode)

    @property
    def value(self) -> float | None:
        """The monitored metric of the best weights."""
        return self.metrics.get(self.monitor[0])

    @cached_property
    def code(self) -> tuple[str, str]:
        """The commit and the digest of the changes since; both empty where they are not known."""
        found = read_json(self.path / PROVENANCE).get("code") or {}
        return str(found.get("commit") or ""), str(found.get("patch") or "")

    @property
    def age(self) -> tuple[int, str]:
        """What sorts runs by their start, the oldest first."""
        return self.order, self.created


def select(names: Sequence[str], project: Path) -> dict[str, list[Path]]:
    """The job directories that each name stands for: a run, a sweep or an experiment.

    Without names: the sweep of the latest run, or else its experiment.

    Raises:
        TrackingError: when a name matches nothing; the message lists candidates.
    """
    if not names:
        jobs = _jobs(project / "runs")
        # cheaper than find_job, which checks every job as one to run
        latest = max(jobs, key=_order) if jobs else find_job("latest", project).path
        inside = (latest.parent / QUEUE).is_file()
        names = [str(latest.parent) if inside else latest.relative_to(project / "runs").parts[0]]
    return {name: _directories(name, project) for name in dict.fromkeys(names)}


def _directories(name: str, project: Path) -> list[Path]:
    runs = project / "runs"
    folders = [project / name, runs / name] if name and name not in (".", "..") else []
    if name.startswith("sweep-"):
        folders += sorted(runs.glob(f"*/{name}"))
    for folder in folders:
        if folder.is_dir() and (found := _jobs(folder)):
            return found
        if (folder / QUEUE).is_file():
            raise TrackingError(f"{name}: a sweep without jobs yet; try again when the first one has started")
    try:
        return [find_job(name, project).path]
    except TrackingError:
        with suppress(TrackingError, ConnectionError):  # the first error says what is missing here
            if found := _stored(name, project):
                return found
        raise


def _stored(name: str, project: Path) -> list[Path]:
    """Directories made for this process from runs that are in the store alone."""
    from regente.tracking.restore import restore_results

    scratch = Path(mkdtemp(prefix="regente-store-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return restore_results(name, project, scratch)


def _order(path: Path) -> tuple[int, str, int]:
    file = path / "job.json"
    facts = read_json(file)
    return facts.get("order", 0), str(facts.get("created")), file.stat().st_mtime_ns


def _jobs(folder: Path) -> list[Path]:
    """The jobs in a folder, or the folder itself if that is one; without sweeps."""
    there = job_directories(folder)
    sweeps = sweeps_among(there)
    return [path for path in there if path not in sweeps]


def read_runs(paths: Iterable[Path]) -> tuple[list[RunRecord], list[Path]]:
    """The runs in job directories, in the order of their start, and the directories that cannot be read."""
    numbers: dict[Path, dict[str, int]] = {}
    found, damaged = [], []
    for path in dict.fromkeys(paths):
        if (record := read_run(path, numbers)) is None:
            damaged.append(path)
        else:
            found.append(record)
    return sorted(found, key=lambda run: (run.age, run.number or 0)), damaged


def read_run(path: Path, numbers: dict[Path, dict[str, int]] | None = None) -> RunRecord | None:
    """The run in a job directory; None if that is damaged. `numbers`: those of the jobs of each sweep, filled here."""
    facts = read_json(path / "job.json")
    if not all(fits(kind, facts.get(name)) for name, kind in FACTS.items()):
        return None
    try:
        config, references = config_with_references(read_text(path / "config.yaml"))
    except (OSError, ValueError):
        return None
    result = read_result(path)
    in_sweep = (path.parent / QUEUE).is_file()
    known = {} if numbers is None else numbers
    if in_sweep and path.parent not in known:
        known[path.parent] = {id_: number for number, id_ in enumerate(_jobs_of(path.parent))}
    return RunRecord(
        path=path,
        **{name: facts[name] for name in FACTS},
        state=_state(path, result),
        config=config,
        references=references,
        order=facts.get("order", 0),
        sweep=path.parent if in_sweep else None,
        number=known[path.parent].get(path.name.partition("-")[0]) if in_sweep else None,
        metrics=_finite(result.get("metrics", {})),
        seconds=result.get("seconds"),
        data=read_json(path / DATA).get("digest", ""),
        result=result,
    )


def waiting(sweep: Path) -> int:
    """How many jobs of a sweep have not started yet, as far as they are known."""
    with suppress(OSError):
        started = {entry.name for entry in (sweep / "states").iterdir()}
        return sum(f"{id_}.json" not in started for id_ in _jobs_of(sweep))
    return len(_jobs_of(sweep))


def _jobs_of(sweep: Path) -> list[str]:
    """The ids of the jobs that its queue names."""
    jobs = read_json(sweep / QUEUE).get("jobs")
    return list(jobs) if isinstance(jobs, dict) else []


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    found = {}
    for name, value in metrics.items():
        with suppress(OverflowError):  # a whole number of 400 digits
            if math.isfinite(number := float(value)):
                found[name] = number
    return found


def _state(path: Path, result: dict[str, Any]) -> str:
    if result:
        return "pruned" if result.get("pruned") else "done"
    from regente.jobs.process_identity import ProcessIdentity  # imports psutil

    process = read_as(ProcessIdentity, path / PROCESS)
    alive = process.alive() if process else False
    if alive is None:  # on another machine
        alive = time.time() - (path / PROCESS).stat().st_mtime < REMOTE_SECONDS
    if alive:
        return "running"
    return "failed" if (path / "traceback.txt").is_file() else "stopped"
