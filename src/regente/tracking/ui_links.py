"""What `regente ui` does before MLflow's UI opens: it ships unshipped journals and prints links to comparisons."""

import socket
from collections.abc import Iterator
from pathlib import Path

from regente.tracking.mlflow_internals import compare_link, view_link
from regente.tracking.store import open_store
from regente.tracking.sync import sync_store
from regente.tracking.view import latest_experiment, log_view, view_key

MONITOR = {"metric": "val/acc", "mode": "max"}  # of runs that record none


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def prepare(project: Path, uri: str, base: str) -> Iterator[str]:
    """Ship unshipped journals; lines with links to the runs of the experiment that was used last.

    If its latest run is of a sweep, there are three links: the jobs of the sweep in a table, all runs of the experiment
    in a table, and the ten best jobs of the sweep side by side. Else there is only the second one. A server without
    saved views (MLflow before 3.15) has no tables.

    Raises:
        TrackingError: when MLflow refuses the store.
    """
    if closed := sync_store(project, uri):
        yield f"runs shipped or closed: {closed}"
    client, _ = open_store(uri, project, "Default")
    experiment = latest_experiment(client)
    if experiment is None:
        return
    runs = client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=50)
    newest = next((run for run in runs if run.data.tags.get("regente.kind") != "evaluation"), runs[0])
    tags, params = newest.data.tags, newest.data.params
    monitor = {key: params.get(f"monitor.{key}", MONITOR[key]) for key in MONITOR}
    is_sweep = tags.get("regente.kind") == "sweep"
    parent = tags.get("mlflow.parentRunId") or (newest.info.run_id if is_sweep else None)
    if parent and log_view(client, experiment, parent, monitor):
        yield f"the latest sweep, best first: {view_link(base, experiment, view_key(experiment, parent))}"
    if log_view(client, experiment, None, monitor):
        name, link = (
            client.get_experiment(experiment).name,
            view_link(base, experiment, view_key(experiment, None)),
        )
        yield f"all jobs of {name}, best first: {link}"
    if parent:
        order = f"metrics.`{monitor['metric']}` {'DESC' if monitor['mode'] == 'max' else 'ASC'}"
        wanted = f"tags.mlflow.parentRunId = '{parent}'"
        best = client.search_runs([experiment], wanted, max_results=10, order_by=[order])
        yield f"its ten best, side by side: {compare_link(base, experiment, [run.info.run_id for run in best])}"
