"""Restores a deleted job directory from the artifacts of its MLflow run."""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from regente.config.tracking_uri import DEFAULT, sqlite_path
from regente.errors import RegenteError, TrackingError, first_of
from regente.jobs.job import DATA, FOUND, PROVENANCE, RESULT, Job, open_job, write_json
from regente.jobs.result import split_of
from regente.jobs.runs import job_directories, run_id
from regente.tracking.store import all_runs, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run
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
    if (client := _client(project)) is None:
        return None
    found = _runs(client, name)
    if len(found) > 1:
        what = f"{len(found)} runs begin with it; write more of it: {first_of(found)}"
        raise TrackingError(f"run {name}: {what}")
    return _fetch(client, found[0], scratch) if found else None


def restore_results(name: str, project: Path, scratch: Path) -> list[Path]:
    """Job directories with the results of runs that are in the store: of an experiment, a sweep or a run; to compare them.

    Raises:
        TrackingError, ConnectionError: when the store refuses, or does not answer.
    """
    if (client := _client(project)) is None:
        return []
    if experiment := client.get_experiment_by_name(name):
        runs = all_runs(client, experiment.experiment_id, "tags.`regente.kind` = 'job'")
    elif re.fullmatch(r"[0-9a-f]{4,32}", name) and len(found := _runs(client, name)) == 1:
        run = client.get_run(found[0])
        jobs = f"tags.mlflow.parentRunId = '{found[0]}'"
        is_sweep = run.data.tags.get("regente.kind") == "sweep"
        runs = all_runs(client, run.info.experiment_id, jobs) if is_sweep else [run]
    else:
        return []
    places = []
    for run in runs:
        (place := scratch / run.info.run_id).mkdir()
        places.append(place)
        with suppress(TrackingError):  # without the files it cannot be read, which the caller says
            _fetch(client, run.info.run_id, place, (*NEEDED, PROVENANCE, DATA))
            _change_resumed(place / "config.yaml", run.data.params)
            if run.info.status == "FINISHED":
                write_json(place / RESULT, _result(run))
    return places


def _change_resumed(file: Path, params: dict[str, str]) -> None:
    """Write the settings that a run was resumed with into its config, which is in the store as it was at the start."""
    changes = [key.removeprefix("resume.").split("/", 1) for key in params if key.startswith("resume.")]
    if not changes:
        return
    config = OmegaConf.load(file)
    for number, key in sorted(changes, key=lambda change: int(change[0])):
        OmegaConf.update(config, key, yaml.safe_load(params[f"resume.{number}/{key}"]), force_add=True)
    OmegaConf.save(config, file)


def _result(run: "Run") -> dict[str, Any]:
    """What result.json of a finished run says of its metrics."""
    params, logged = run.data.params, run.data.metrics
    best = {key.removeprefix("best/"): value for key, value in logged.items() if key.startswith("best/")}
    metrics = {key: value for key, value in best.items() if key != "epoch"}
    metrics |= {key: value for key, value in logged.items() if split_of(key)[0] == "test"}
    monitor = {key: params.get(f"monitor.{key}", "") for key in ("metric", "mode")}
    return {"metrics": metrics, "monitor": monitor, "pruned": "regente.pruned" in run.data.tags}


def _client(project: Path) -> "MlflowClient | None":
    """The project's store; None where there is none yet."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT
    path = sqlite_path(uri, project)
    return open_store(uri, project, "Default")[0] if path is None or path.is_file() else None


def _runs(client: "MlflowClient", name: str) -> list[str]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_id LIKE '{name}%'", max_results=10)
    return [run.info.run_id for run in runs]


def _fetch(client: "MlflowClient", run: str, scratch: Path, files: Iterable[str] = FILES) -> Job:
    """Copy the files of a job from the run; only the names in FILES are used, never names from the run."""
    for file in files:
        place = FILES[file]
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
