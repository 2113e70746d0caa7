"""Restores a deleted job directory from the artifacts of its MLflow run."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from regente.config.tracking_uri import DEFAULT, sqlite_path
from regente.errors import RegenteError, TrackingError, first_of
from regente.jobs.job import DATA, FOUND, PROVENANCE, Job, open_job
from regente.jobs.runs import job_directories, run_id
from regente.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FILES = {  # files of a job directory, and their artifact folders
    "config.yaml": "config", "job.json": "config", PROVENANCE: "environment", "torch.json": "environment",
    DATA: "environment", FOUND: "", "trace.jsonl": "",
}  # fmt: skip
NEEDED = ("config.yaml", "job.json")


def restore(name: str, project: Path, scratch: Path) -> Job | None:
    """The job of the MLflow run whose id begins with `name`; None if a job directory has the id, or no run has it.

    Raises:
        TrackingError: when several ids begin with it, or the run is not Regente's.
    """
    if (
        not re.fullmatch(r"[0-9a-f]{4,32}", name)
        or (project / name).exists()
        or (project / "runs" / name).exists()
    ):
        return None
    if any(run_id(path).startswith(name) for path in job_directories(project / "runs")):
        return None
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT
    path = sqlite_path(uri, project)
    if path is not None and not path.is_file():
        return None
    client, _ = open_store(uri, project, "Default")
    found = _runs(client, name)
    if len(found) > 1:
        what = f"{len(found)} runs begin with it; write more of it: {first_of(found)}"
        raise TrackingError(f"run {name}: {what}")
    return _fetch(client, found[0], scratch) if found else None


def _runs(client: "MlflowClient", name: str) -> list[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_id LIKE '{name}%'", max_results=10)
    return [run.info.run_id for run in runs]


def _fetch(client: "MlflowClient", run: str, scratch: Path) -> Job:
    """Copy the files of a job from the run; only the names in FILES are used, never names from the run."""
    for file, place in FILES.items():
        with suppress(Exception):  # MLflow has several errors for a missing artifact
            client.download_artifacts(run, f"{place}/{file}".lstrip("/"), str(scratch))
            (scratch / place / file).replace(scratch / file)
    if missing := [file for file in NEEDED if not (scratch / file).is_file()]:
        raise TrackingError(
            f"run {run}: not a run of Regente, it has no config/{missing[0]}; name another run"
        )
    (scratch / "recorded.json").write_text(json.dumps({"run_id": run}))
    try:
        return open_job(scratch)
    except RegenteError as error:
        raise TrackingError(f"run {run}: its config/job.json is damaged ({error.__cause__})") from error
