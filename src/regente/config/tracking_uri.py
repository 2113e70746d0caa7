"""The address of a tracking store, and what is wrong with it; checked without MLflow."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from regente.errors import Problem

DEFAULT = "sqlite:///mlflow.db"
REMOTE = ("http", "https", "databricks", "postgresql", "mysql", "mssql")


def absolute_uri(uri: str, project: Path) -> str:
    """A SQLite URI with its path made absolute from the project folder; any other URI as it is."""
    path = sqlite_path(uri, project)
    return sqlite_uri(path) if path else uri


def sqlite_uri(path: Path) -> str:
    """The URI of a database file: SQLAlchemy decodes % and takes what follows ? for options."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def sqlite_path(uri: str, project: Path) -> Path | None:
    """The database file of a SQLite URI."""
    return project / unquote(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def problems(uri: str | None, project: Path, *, create: bool) -> list[Problem]:
    """What is wrong with a store's address, as far as one can tell without MLflow."""
    if uri is None:
        return []
    where = f"tracking.uri={uri}"
    path = sqlite_path(uri, project)
    scheme = re.match(r"([a-z][a-z0-9]*)(\+\w+)?://", uri)
    if path is None and (scheme is None or scheme[1] == "file"):
        what = "MLflow no longer takes folders; sqlite:///mlflow.db is a store in one file (to move an old folder into"
        return [
            Problem(
                where, f"{what} it: mlflow migrate-filestore --source FOLDER --target sqlite:///mlflow.db)"
            )
        ]
    if path is None:
        known = scheme is not None and scheme[1] in REMOTE
        return (
            [] if known else [Problem(where, "no such kind of store; use sqlite:///FILE or http://HOST:PORT")]
        )
    if path.is_dir():
        return [Problem(where, "is a folder; name the database file in it, for example mlflow.db")]
    if not path.parent.is_dir():
        return [Problem(where, f"there is no folder {path.parent}; mend the path, or make the folder first")]
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return [Problem(where, "may not be written by you; name another file, or tracking=none")]
    if not path.exists() and uri != DEFAULT and not create:
        return [
            Problem(
                where, "there is no store yet; if that is the right place: tracking.create=true makes one"
            )
        ]
    return []
