"""A job directory made anew from what its MLflow run holds, where the directory itself is gone."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from regente.config.tracking_uri import DEFAULT, sqlite_path
from regente.errors import RegenteError, TrackingError
from regente.jobs.job import DATA, FOUND, PROVENANCE, Job, open_job
from regente.jobs.runs import job_directories, run_id
from regente.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FILES = {  # of a job directory, by their places among the artifacts
    "config.yaml": "config", "job.json": "config", PROVENANCE: "environment", "torch.json": "environment",
    DATA: "environment", FOUND: "", "trace.jsonl": "",
}  # fmt: skip
NEEDED = ("config.yaml", "job.json")


def restore(name: str, project: Path, scratch: Path) -> Job | None:
    """The job of the MLflow run whose id begins with `name`; none where a job directory has it, or no run.

    Raises:
        TrackingError: when several runs begin with it, or the run is not one of Regente's.
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
        raise TrackingError(
            f"run {name}: {len(found)} runs begin with it; write more of it: {', '.join(found[:5])}"
        )
    return _fetch(client, found[0], scratch) if found else None


def _runs(client: "MlflowClient", name: str) -> list[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_id LIKE '{name}%'", max_results=10)
    return [run.info.run_id for run in runs]


def _fetch(client: "MlflowClient", run: str, scratch: Path) -> Job:
    """Copy the files of a job out of the run; their names are ours, never the run's."""
    for file, place in FILES.items():
        with suppress(Exception):  # MLflow has no one error for an artifact that is not there
            client.download_artifacts(run, f"{place}/{file}".lstrip("/"), str(scratch))
            (scratch / place / file).replace(scratch / file)
    if missing := [file for file in NEEDED if not (scratch / file).is_file()]:
        raise TrackingError(
            f"run {run}: not one of Regente's, it has no config/{missing[0]}; name another run"
        )
    (scratch / "recorded.json").write_text(json.dumps({"run_id": run}))
    try:
        return open_job(scratch)
    except RegenteError as error:
        raise TrackingError(f"run {run}: its config/job.json is not a job's ({error.__cause__})") from error
