"""The commands on the tracking store: `regente ui`, `regente sync`. Their --help imports no MLflow."""

import os
import sys
from pathlib import Path

import click

from regente.errors import ConfigError, MachineError, Problem, TrackingError


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1."
)
@click.option(
    "--uri", help="The store: sqlite:///FILE or a server. Default: MLFLOW_TRACKING_URI, or mlflow.db here."
)
def ui(port: int, uri: str | None) -> None:
    """Start MLflow's UI with the project's runs.

    Only this machine can reach it. The command prints links to tables of the latest runs, best first.

    \b
    regente ui --port 5001
    """
    from regente.config.tracking_uri import DEFAULT, problems, sqlite_path, sqlite_uri
    from regente.tracking.ui_links import is_free, prepare

    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT
    if wrong := problems(uri, Path.cwd(), create=True):
        raise ConfigError(
            [Problem(problem.where.replace("tracking.uri=", "--uri "), problem.what) for problem in wrong]
        )
    path, base = sqlite_path(uri, Path.cwd()), f"http://127.0.0.1:{port}"
    if path is not None and not path.is_file():
        raise ConfigError(
            [
                Problem(
                    f"--uri {uri}",
                    f"there is no {path}; regente train makes one, --uri sqlite:///FILE names another",
                )
            ]
        )
    if path is not None and not is_free(port):
        raise MachineError(f"--port {port} is in use, maybe by another regente ui; try --port {port + 1}")
    for line in prepare(Path.cwd(), uri, base if path else uri):
        click.echo(line)
    if path is None:  # a server has its own UI
        return
    click.echo(f"MLflow on {base}, ready in about ten seconds; Ctrl-C stops it")
    sys.stdout.flush()
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    from mlflow.cli import cli  # in this process, which has imported the rest of MLflow for the links

    # relative: beside a folder whose name has to be encoded MLflow would make another one
    store = sqlite_uri(Path(os.path.relpath(path)))
    cli(["server", f"--port={port}", "--host=127.0.0.1", "--workers=1", f"--backend-store-uri={store}"])


@click.command()
def sync() -> None:
    """Ship unshipped records to MLflow, and close dead runs.

    \b
    regente sync      after a server failure, a kill or a power cut
    """
    from regente.tracking.sync import sync_project

    failed = False
    for line in sync_project(Path.cwd()):
        failed |= line.startswith("not shipped")
        click.echo(line)
    if failed:
        sys.exit(TrackingError.exit_code)
