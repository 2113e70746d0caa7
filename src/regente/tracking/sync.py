"""Putting right what runs left behind whose process died: ship the rest of their journals, close their runs."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from regente.config.interpolation import resolve
from regente.config.tracking_uri import DEFAULT, absolute_uri, sqlite_path
from regente.errors import ConfigError, Problem, TrackingError
from regente.jobs.job import Job, open_job
from regente.jobs.process_identity import LEASE, ProcessIdentity, boot_id
from regente.jobs.trust import read_config
from regente.tracking.journal import cut_torn_line
from regente.tracking.shipment import Shipment, lock_of, read_state
from regente.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PATIENCE = 30.0  # seconds to wait for another process that ships the same journal


def left_behind(project: Path, *, refused: bool = False) -> list[Job]:
    """Jobs of a project whose journal is not all in the store; to know that takes no MLflow.

    `refused`: also those that the store would not have.
    """
    jobs = []
    for file in sorted((project / "runs").glob("**/journal.jsonl")):
        if not (file.parent / "process_identity.json").is_file():
            continue  # tracking=none
        state = read_state(file.parent)
        left = not state["ended"] or state["offset"] < file.stat().st_size
        if left and (refused or not state["refused"]):
            with suppress(Exception):
                jobs.append(open_job(file.parent))
    return jobs


def sync_job(job: Job, patience: float = 0) -> str:
    """Ship what is left of one job's journal; what became of it, in words.

    A job whose process lives is left to it; one whose shipper is still trying is waited for, `patience` seconds.
    """
    uri = _store(job)
    if uri is None or not (job.path / "process_identity.json").is_file():
        return "nowhere to ship it to"
    try:
        dead = owner_of(job).alive() is False
        with lock_of(job.path, patience if dead else 0):
            if dead:
                cut_torn_line(job.journal)
            shipment = Shipment(job, uri, own=False)
            shipment.ship()
            shipment.note(refused="")  # it was mended since
            if not shipment.state["ended"]:
                if not dead:
                    return "still running"
                shipment.end_as_killed()
            shipment.complete()
            return "shipped"
    except Timeout:
        return "being shipped"


def _store(job: Job) -> str | None:
    """Where a job records; one that does not come from this boot of this machine may be anybody's.

    Raises:
        ConfigError: when such a job names a store, or a folder to start in, that is not this project's.
    """
    own = owner_of(job).boot == boot_id()
    if not own and not job.path.is_relative_to(Path(job.project) / "runs"):
        raise ConfigError(
            [Problem("job.json", f"project {ascii(job.project)[:100]} is not where this run lies")]
        )
    config = resolve(job.config, ["tracking"]) if own else read_config(job, Path(job.project), ["tracking"])
    return config["tracking"]["uri"]  # type: ignore[no-any-return]


def owner_of(job: Job) -> ProcessIdentity:
    """The process that runs, or ran, a job."""
    return ProcessIdentity(**json.loads((job.path / "process_identity.json").read_text()))


def sync_project(project: Path) -> Iterator[str]:
    """Ship all that a project's jobs have left behind and close dead runs of their stores; a line for each."""
    uris: set[str] = set()
    for job in left_behind(project, refused=True):
        place = job.path.relative_to(project)
        try:
            if uri := _store(job):
                uris.add(uri)
            yield f"{sync_job(job, PATIENCE)}: {place}"
        except Exception as error:  # also what MLflow raises; the others' turn comes all the same
            yield f"not shipped: {place}: {error}"
    if (project / "mlflow.db").is_file():
        uris.add(DEFAULT)
    for uri in uris:
        try:
            closed = sync_others(project, uri, wait=True)
        except (TrackingError, OSError) as error:
            yield f"not shipped: {error}"
        else:
            yield f"{uri}: {closed} dead runs closed" if closed else f"{uri}: all runs are whole"


def sync_others(project: Path, uri: str, *, wait: bool = False) -> int:
    """Ship all that is left behind in a project and close dead runs of its store; how many were closed or shipped."""
    count = 0
    for job in left_behind(project):
        with suppress(Exception):  # another job's store may be away, or gone: its journal stays
            count += sync_job(job) == "shipped"
    path = sqlite_path(uri, project)
    if path is not None and not path.is_file():
        return count
    client, _ = open_store(absolute_uri(uri, project), project, "Default")
    return count + close_dead(client, wait=wait)


def close_dead(client: "MlflowClient", *, wait: bool) -> int:
    """End as KILLED every run that says RUNNING and whose process is gone; how many.

    Runs of this host are asked for their process. Runs of other hosts are dead when their beat does not change
    during a lease; that is only waited for if asked to. Runs that Regente did not start are left alone.
    """
    closed, elsewhere = 0, []
    for run in running(client):
        alive = owner_in(run).alive()
        if alive is False and not being_shipped(Path(run.data.tags.get("regente.job", ""))):
            close(client, run)
            closed += 1
        elif alive is None:
            elsewhere.append(run)
    if wait and elsewhere:
        time.sleep(LEASE)
        for run in elsewhere:
            now = client.get_run(run.info.run_id)
            if now.info.status == "RUNNING" and now.data.tags.get("regente.beat") == run.data.tags.get(
                "regente.beat"
            ):
                close(client, run)
                closed += 1
    return closed


def being_shipped(path: Path) -> bool:
    """Whether a process is carrying the rest of a job's journal into the store, its true end included."""
    if not (path / "process_identity.json").is_file():
        return False
    try:
        with lock_of(path):
            return False
    except Timeout:
        return True


def running(client: "MlflowClient") -> "list[Run]":
    """Runs that say RUNNING and that Regente started."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: Any = client.search_runs(
        experiments, "attributes.status = 'RUNNING' and tags.`regente.pid` != ''", max_results=1000
    )
    return list(found)


def owner_in(run: "Run") -> ProcessIdentity:
    """The process that a run's tags name."""
    tags = run.data.tags
    host, boot, pid, started = (tags.get(f"regente.{key}", "") for key in ("host", "boot", "pid", "started"))
    return ProcessIdentity(host, boot, int(pid), started)


def close(client: "MlflowClient", run: "Run") -> None:
    """End a dead run at the time of its last metric, or of its start."""
    times = [
        client.get_metric_history(run.info.run_id, key)[-1].timestamp for key in list(run.data.metrics)[:1]
    ]
    client.set_terminated(run.info.run_id, "KILLED", max([*times, run.info.start_time]))
    client.set_tag(run.info.run_id, "regente.failure", "its process died without a word")
