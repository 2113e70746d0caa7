"""Which run a name means: a job directory, `latest`, an experiment, or an MLflow run id or the start of one."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regente.errors import CheckpointError, TrackingError
from regente.job import Job, open_job

SHOWN = 5  # candidates that an answer names


@dataclass(frozen=True)
class Run:
    """A job that has finished, with its result."""

    job: Job
    result: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        """Its best weights; also where the job directory was moved.

        Raises:
            CheckpointError: when none were kept, or they are gone.
        """
        best = self.result.get("best_checkpoint")
        if not best:
            raise CheckpointError(
                f"{shown(self.job.path)}: the run kept no weights; train with callbacks=default"
            )
        here = self.job.checkpoints / Path(best).name
        for file in (here, Path(best)):
            if file.is_file():
                return file
        raise CheckpointError(f"{shown(here)}: no such checkpoint; put it back, or name another run")


def find(name: str, project: Path) -> Run:
    """The finished run that a name means in a project, the folder that holds `runs/`.

    Raises:
        TrackingError: when no run is meant, or several are; with those that could be.
    """
    folder = project / name
    if (folder / "job.json").is_file():
        return _finished_or_refuse(name, folder)
    directories = [file.parent for file in sorted((project / "runs").glob("**/job.json"))]
    if name == "latest":
        return _latest(name, directories)
    if (project / "runs" / name).is_dir() and name not in ("", ".", ".."):
        return _latest(name, [path for path in directories if path.is_relative_to(project / "runs" / name)])
    found = [path for path in directories if name and run_id(path).startswith(name)]
    if len(found) == 1:
        return _finished_or_refuse(name, found[0])
    if found:
        raise TrackingError(
            f"run {name}: {len(found)} runs begin with it; write more of it: {_listed(found, ids=True)}"
        )
    raise TrackingError(f"run {name}: no such run here; there is: {_candidates(directories)}")


def run_id(path: Path) -> str:
    """The id of a job's run in MLflow; empty where it has none."""
    return str(_json(path / "recorded.json").get("run_id") or "")


def shown(path: Path) -> str:
    """A path as one would type it from here."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _finished_or_refuse(name: str, path: Path) -> Run:
    run = _finished(path)
    if run is not None:
        return run
    if jobs := [file.parent for file in sorted(path.glob("*/job.json"))]:
        raise TrackingError(f"run {name}: a sweep; name one of its jobs: {_listed(jobs)}")
    raise TrackingError(
        f"run {name}: it has not finished, there is no {shown(path)}/result.json; name another run"
    )


def _latest(name: str, directories: list[Path]) -> Run:
    runs = [run for path in directories if (run := _finished(path))]
    if not runs:
        number = f"none of {len(directories)} has finished" if directories else "there is none"
        raise TrackingError(f"run {name}: {number}; regente train makes one")
    return max(runs, key=lambda run: (run.job.created, (run.job.path / "result.json").stat().st_mtime_ns))


def _finished(path: Path) -> Run | None:
    result = _json(path / "result.json")
    return Run(open_job(path), result) if result else None


def _candidates(directories: list[Path]) -> str:
    finished = [path for path in directories if (path / "result.json").is_file()]
    if not finished:
        return "none yet, regente train makes one"
    return f"latest, {_listed(sorted(finished, key=lambda path: path.name, reverse=True))}"


def _listed(paths: list[Path], *, ids: bool = False) -> str:
    names = [run_id(path) if ids else shown(path) for path in paths[:SHOWN]]
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(names) + more


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
