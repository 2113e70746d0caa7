"""MLflow's store: opened safely, also by many processes at once."""

import glob
import os
import re
import socket
import sys
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from filelock import FileLock

from regente.config.tracking_uri import sqlite_path, sqlite_uri
from regente.errors import TrackingError
from regente.jobs.imports import without_garbage_collection
from regente.tracking.mlflow_internals import (
    DAMAGED_DATABASE,
    NO_ANSWER,
    NO_DATABASE,
    OUTDATED_SCHEMA,
    create_database,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

LONGEST_NAME = 250  # characters of a metric or parameter that MLflow takes
LARGE = 200_000_000  # bytes of a database
PROBE = 3.0  # seconds that a server has to answer


def unreachable(uri: str) -> str:
    """Why a server does not answer within three seconds; empty if it does, or if the store is not a server."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return ""
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname, port), timeout=PROBE):
            pass
        with urlopen(f"{parts.scheme}://{parts.hostname}:{port}/health", timeout=PROBE):
            return ""
    except HTTPError:
        return ""  # some server answers; MLflow's client finds out whether it is MLflow
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def open_store(uri: str, project: Path, experiment: str) -> "tuple[MlflowClient, str]":
    """A client of the store, and the id of the experiment; both are created if they do not exist.

    A new SQLite store gets its artifacts in `mlartifacts/` beside the database file.

    Raises:
        TrackingError: when the store refuses for good.
        ConnectionError: when it does not answer.
    """
    prepare_mlflow()
    path = sqlite_path(uri, project)
    if path is None and (reason := unreachable(uri)):
        raise ConnectionError(reason)
    if "mlflow.tracking" not in sys.modules:
        with without_garbage_collection():
            import mlflow.tracking

            if path is not None:
                import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    if path is None:
        return _open(uri, experiment, None)
    # MLflow's migrations race: of eight processes on a fresh file seven die without this lock
    encoded = sqlite_uri(path)
    with FileLock(path.with_name(f".{path.name}.lock")):
        try:
            if not path.exists():
                _create(path)
            return _open(encoded, experiment, (path.parent / "mlartifacts" / experiment).as_uri())
        finally:
            # MLflow also makes the folder whose name is the encoded one
            if "%" in encoded:
                with suppress(OSError):
                    os.removedirs(Path(encoded.removeprefix("sqlite:///")).parent)


def _create(path: Path) -> None:
    """Make a SQLite store whole or not at all: MLflow cannot go on with one whose maker was killed."""
    draft = path.with_name(f".{path.name}.draft")
    for file in path.parent.glob(f"{glob.escape(draft.name)}*"):  # also its journal
        file.unlink()
    create_database(sqlite_uri(draft), (path.parent / "mlartifacts").as_uri())
    draft.rename(path)


def _open(uri: str, experiment: str, artifacts: str | None) -> "tuple[MlflowClient, str]":
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return client, client.create_experiment(experiment, artifact_location=artifacts)
    except (MlflowException, SQLAlchemyError) as error:
        raise _refusal(uri, str(error)) from error
    if found.lifecycle_stage == "deleted":
        remedy = (
            f"mlflow experiments restore --experiment-id {found.experiment_id}, or tracking.experiment=NAME"
        )
        raise TrackingError(f"tracking.experiment={experiment}: that experiment is deleted; {remedy}")
    return client, found.experiment_id


def _refusal(uri: str, text: str) -> Exception:
    """The error for a message of MLflow or SQLAlchemy: TrackingError if it is final, ConnectionError if not."""
    if any(each in text for each in OUTDATED_SCHEMA):
        what = "the database is of another version of MLflow; make a copy of it, then"
        return TrackingError(f"tracking.uri={uri}: {what}: mlflow db upgrade {uri}")
    if any(each in text for each in NO_DATABASE):
        return TrackingError(f"tracking.uri={uri}: that file is no SQLite database; name another")
    if DAMAGED_DATABASE in text:
        what = (
            "the database is damaged; put a copy back, or repair it: sqlite3 FILE .recover | sqlite3 NEW_FILE"
        )
        return TrackingError(f"tracking.uri={uri}: {what}")
    if any(each in text for each in NO_ANSWER):
        return ConnectionError(text.splitlines()[0][:200])
    return TrackingError(f"tracking.uri={uri}: {text.splitlines()[0][:300]}")


def require_whole(uri: str, project: Path) -> None:
    """Let SQLite look for damage; 50 MB take 1.4 CPU s, and the short check of a larger file a tenth of that.

    Raises:
        TrackingError: when there is some.
    """
    path = sqlite_path(uri, project)
    if path is None or not path.is_file():
        return
    import sqlite3

    check = "integrity_check" if path.stat().st_size < LARGE else "quick_check"
    with closing(sqlite3.connect(path, timeout=60)) as database:
        database.text_factory = bytes  # a damaged text may not be UTF-8
        try:
            found = database.execute(f"PRAGMA {check}(1)").fetchall()
        except sqlite3.DatabaseError as error:
            raise _refusal(uri, str(error)) from error
    if found != [(b"ok",)]:
        raise _refusal(uri, DAMAGED_DATABASE)


def prepare_mlflow() -> None:
    """Switch off MLflow's messages and telemetry, and its wait of minutes for a server that does not answer."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")  # seconds
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


def all_runs(client: "MlflowClient", experiment: str, wanted: str) -> "list[Run]":
    """All runs of an experiment that match a filter of MLflow's."""
    page = client.search_runs([experiment], wanted)
    runs = list(page)
    while page.token:
        page = client.search_runs([experiment], wanted, page_token=page.token)
        runs += page
    return runs


def named(key: str) -> str:
    """A metric's or parameter's name as MLflow takes it: `recall@5` as `recall_5`, `val//acc` as `val/_/acc`."""
    parts = re.sub(r"[^/\w.\- :]", "_", key).split("/")  # MLflow reads a name as a path
    name = "/".join("_" * max(1, len(part)) if part in ("", ".", "..") else part for part in parts)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{sha256(key.encode()).hexdigest()[:8]}"
