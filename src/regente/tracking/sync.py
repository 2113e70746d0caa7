"""Ship the journals of processes that died or could not reach the store, and close their runs."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from regente.config.interpolation import resolve
from regente.config.tracking_uri import DEFAULT, absolute_uri, sqlite_path
from regente.errors import TrackingError
from regente.jobs.job import JOURNAL, PROCESS, Job, open_job, read_as
from regente.jobs.process_identity import LEASE, ProcessIdentity
from regente.jobs.runs import shown
from regente.jobs.trust import made_by_user, read_config
from regente.tracking.journal import cut_torn_line
from regente.tracking.mlflow_run import HEARTBEAT_TAG, Shipment
from regente.tracking.shipping_state import STATE, ending_of, lock_of, read_state
from regente.tracking.store import open_store, require_whole

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PATIENCE = 30.0  # seconds to wait for another process that ships the same journal


def unshipped(project: Path, *, refused: bool = False) -> Iterator[Path]:
    """Directories of jobs whose journal, figures or model are not completely in the store; this does not import MLflow.

    `refused`: include jobs that the store has refused.
    """
    found = (project / "runs").glob("**/journal.jsonl")
    for file in sorted(found, key=lambda file: (len(file.parts), file)):  # a sweep before its jobs
        if is_unshipped(file.parent, refused=refused):
            yield file.parent


def is_unshipped(path: Path, *, refused: bool = False) -> bool:
    """Whether the journal, the figures or the model of a job are not completely in its store.

    `refused`: also if the store has refused the job.
    """
    if not ((path / STATE).is_file() and (path / PROCESS).is_file()):
        return False  # tracking=none, or a job of a sweep that is about to start again
    file, state = path / JOURNAL, read_state(path)
    whole = state.get("complete") or "run_id" not in state  # figures and model are there too
    size = file.lstat().st_size if file.is_file() else math.inf
    incomplete = not (state["ended"] and whole) or state["offset"] < size
    return incomplete and (refused or not state["refused"])


def sync_job(job: Job, project: Path, patience: float = 0) -> str:
    """Ship the rest of one job's journal; the outcome as a phrase.

    A job whose process is alive keeps its own shipper. Of a dead one, `patience` seconds are given to a shipper that
    still works on it.
    """
    job, own = replace(job, project=str(project)), made_by_user(job)
    uri = store_of(job, project, own)
    if uri is None:
        return "nowhere to ship it to"
    try:
        dead = process_of_job(job).alive() is False
        with lock_of(job.path, patience if dead else 0):
            if dead:
                cut_torn_line(job.journal)
            shipment = Shipment(job, uri, own=own)
            shipment.ship()
            shipment.note(refused="")
            if not shipment.state["ended"]:
                if not dead:
                    return "still running"
                shipment.end_of_dead()
            shipment.log_outputs()
            return "shipped"
    except Timeout:
        return "being shipped"


def store_of(job: Job, project: Path, own: bool) -> str | None:
    """The tracking URI of a job. The URI of a job that this user has not made has to be trusted.

    Raises:
        ConfigError: when such a job names a store that is not this project's.
    """
    config = resolve(job.config, ["tracking"]) if own else read_config(job, project, ["tracking"])
    return config["tracking"]["uri"]  # type: ignore[no-any-return]


def process_of_job(job: Job) -> ProcessIdentity:
    """The process that runs a job, or ran it last.

    Raises:
        TrackingError: when the file that names it is damaged.
    """
    if (process := read_as(ProcessIdentity, job.path / PROCESS)) is None:
        raise TrackingError(f"{shown(job.path)}/{PROCESS}: damaged; regente resume writes it anew")
    return process


def sync_project(project: Path) -> Iterator[str]:
    """Ship all unshipped journals of a project and close dead runs of its stores; a line for each."""
    damage: dict[str, str] = {}  # by store; empty where it is whole
    for path in unshipped(project, refused=True):
        place = path.relative_to(project)
        try:
            job = open_job(path)
            if (uri := store_of(job, project, made_by_user(job))) and _damage(uri, project, damage):
                continue
            yield f"{sync_job(job, project, PATIENCE)}: {place}"
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            yield f"not shipped: {place}/journal.jsonl or {STATE}: damaged ({type(error).__name__}: {error})"
        except Exception as error:  # MLflow raises many kinds; the other jobs are still shipped
            yield f"not shipped: {place}: {error}"
    if (project / "mlflow.db").is_file():
        _damage(DEFAULT, project, damage)
    for uri in damage:
        if damage[uri]:
            yield f"not shipped: {damage[uri]}"
            continue
        try:
            closed = sync_store(project, uri, wait=True)
        except (TrackingError, OSError) as error:
            yield f"not shipped: {error}"
        else:
            yield f"{uri}: {closed} dead runs closed" if closed else f"{uri}: all runs are complete"


def _damage(uri: str, project: Path, known: dict[str, str]) -> str:
    """What is damaged in a store; looked for once, and noted in `known`."""
    if uri not in known:
        known[uri] = ""
        try:
            require_whole(uri, project)
        except (TrackingError, OSError) as error:
            known[uri] = str(error)
    return known[uri]


def sync_store(
    project: Path, uri: str, *, wait: bool = False, stop: Callable[[], bool] = lambda: False
) -> int:
    """Ship all unshipped journals of a project and close dead runs of one store; how many were shipped or closed.

    `stop`: is asked before each journal.
    """
    count = 0
    for path in unshipped(project):
        if stop():
            return count
        with suppress(Exception):  # the store of another job may be unreachable or gone: its journal stays
            count += sync_job(open_job(path), project) == "shipped"
    database = sqlite_path(uri, project)
    if database is not None and not database.is_file():
        return count
    client, _ = open_store(absolute_uri(uri, project), project, "Default")
    return count + close_dead(client, wait=wait)


def close_dead(client: "MlflowClient", *, wait: bool) -> int:
    """Set runs to KILLED that are RUNNING in the store but whose process is dead; how many.

    A run of another machine is dead when its heartbeat does not change during a lease; that takes `wait`. Runs that
    Regente did not start stay as they are.
    """
    closed, elsewhere = 0, []
    for run in running(client):
        alive = process_of_run(run).alive()
        if alive is False and not being_shipped(Path(run.data.tags.get("regente.job", ""))):
            close(client, run)
            closed += 1
        elif alive is None:
            elsewhere.append(run)
    if wait and elsewhere:
        time.sleep(LEASE)
        for run in elsewhere:
            now = client.get_run(run.info.run_id)
            same = now.data.tags.get(HEARTBEAT_TAG) == run.data.tags.get(HEARTBEAT_TAG)
            if now.info.status == "RUNNING" and same:
                close(client, run)
                closed += 1
    return closed


def being_shipped(path: Path) -> bool:
    """Whether a process is shipping the rest of a job's journal, which holds the true end of its run."""
    if not (path / STATE).is_file():
        return False
    try:
        with lock_of(path):
            return False
    except Timeout:
        return True


def running(client: "MlflowClient") -> "list[Run]":
    """Runs that Regente started and whose status is RUNNING."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = "attributes.status = 'RUNNING' and tags.`regente.pid` != ''"
    return list(client.search_runs(experiments, wanted, max_results=1000))


def process_of_run(run: "Run") -> ProcessIdentity:
    """The process that a run's tags name."""
    host, boot, pid, started = (
        run.data.tags.get(f"regente.{key}", "") for key in ("host", "boot", "pid", "started")
    )
    return ProcessIdentity(host, boot, int(pid), started)


def close(client: "MlflowClient", run: "Run") -> None:
    """End a dead run: as its job directory says, else as killed at the time of its last metric, or of its start."""
    path, id_ = Path(run.data.tags.get("regente.job", "")), run.info.run_id
    if read_state(path).get("run_id") == id_:  # the store did not take all of its journal
        status, at = ending_of(path)
    else:
        times = [client.get_metric_history(id_, key)[-1].timestamp for key in list(run.data.metrics)[:1]]
        status, at = "KILLED", max([*times, run.info.start_time])
    client.set_terminated(id_, status, at)
    if status == "KILLED":
        client.set_tag(id_, "regente.failure", "its process was killed")
