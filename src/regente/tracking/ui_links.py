"""Before the UI opens: what is left behind is shipped, and the comparison is laid out."""

import socket
from collections.abc import Iterator
from pathlib import Path

from regente.tracking import run_artifacts as contents
from regente.tracking.store import open_store
from regente.tracking.sync import sync_others
from regente.tracking.view import compare_link, latest_experiment, view_link

MONITOR = {"metric": "val/acc", "mode": "max"}  # of runs that do not say


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def prepare(project: Path, uri: str, base: str) -> Iterator[str]:
    """Lines for the user: the links to the latest sweep's comparison, or to that of the latest experiment.

    Raises:
        TrackingError: when MLflow refuses the store.
    """
    if closed := sync_others(project, uri):
        yield f"shipped or closed: {closed} runs left behind"
    client, _ = open_store(uri, project, "Default")
    experiment = latest_experiment(client)
    if experiment is None:
        return
    runs = client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=50)
    newest = next((run for run in runs if run.data.tags.get("regente.kind") != "evaluation"), runs[0])
    tags, params = newest.data.tags, newest.data.params
    monitor = {key: params.get(f"monitor.{key}", MONITOR[key]) for key in MONITOR}
    parent = tags.get("mlflow.parentRunId") or (
        newest.info.run_id if tags.get("regente.kind") == "sweep" else None
    )
    for what, run in (
        ("the latest sweep", parent),
        (f"all jobs of {client.get_experiment(experiment).name}", None),
    ):
        if (run or what.startswith("all")) and contents.log_view(client, experiment, run, monitor):
            yield f"{what}, best first: {view_link(base, experiment, f'regente-{(run or experiment)[:12]}')}"
    if parent:
        order = f"metrics.`{monitor['metric']}` {'DESC' if monitor['mode'] == 'max' else 'ASC'}"
        wanted = f"tags.mlflow.parentRunId = '{parent}'"
        best = client.search_runs([experiment], wanted, max_results=10, order_by=[order])
        yield f"its ten best, side by side: {compare_link(base, experiment, [run.info.run_id for run in best])}"
