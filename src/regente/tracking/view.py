"""The comparison in MLflow's UI: a saved view of an experiment, and the links that open it."""

import base64
import json
import math
import time
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TAG = "mlflow.sharedViewState."  # an experiment tag of this prefix is a saved view, since MLflow 3.15
OLDEST = (3, 15)
CLASSIC = {"workflowType": "machine_learning"}  # without it a fresh browser opens on MLflow's pages for LLMs


def write_view(
    client: "MlflowClient",
    experiment_id: str,
    *,
    key: str,
    name: str,
    metrics: list[str],
    params: list[str],
    order_by: str,
    ascending: bool,
    parent_run_id: str | None,
) -> bool:
    """Save a table of the sweep's runs, or of all runs, best first; whether MLflow took it.

    `order_by` is the metric that sorts and comes first, before the other metrics and the params. A view
    of the same key is replaced. MLflow's format is private, so nothing that goes wrong here is an error.
    """
    state = view_state(metrics, params, order_by, ascending, parent_run_id)
    try:
        if not shows_views(client.tracking_uri):
            return False
        now = int(time.time() * 1000)
        before = client.get_experiment(experiment_id).tags.get(TAG + key)
        created = json.loads(before)["createdAt"] if before else now
        envelope = {"name": name, "createdAt": created, "updatedAt": now, "state": deflated(state)}
        client.set_experiment_tag(experiment_id, TAG + key, json.dumps(envelope))
    except Exception:  # a view is a comfort: it must never be what ends a run
        return False
    return True


def view_state(
    metrics: list[str], params: list[str], order_by: str, ascending: bool, parent_run_id: str | None
) -> dict[str, Any]:
    """What MLflow's UI keeps of a table: names as in its `SearchFacetsState` and `ExperimentPageUIState`."""
    names = [order_by, *(metric for metric in metrics if metric != order_by)]
    columns = {f"metrics.`{metric}`": metric for metric in names} | {f"params.`{p}`": p for p in params}
    widths = {column: min(max(90, 7 * len(text) + 40), 240) for column, text in columns.items()}
    run_name, created, duration = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
    return {
        # every run under its parent would be a row to unfold, and its curves would be hidden
        "searchFilter": f"tags.mlflow.parentRunId = '{parent_run_id}'" if parent_run_id else "",
        "orderByKey": f"metrics.`{order_by}`",
        "orderByAsc": ascending,
        "selectedColumns": list(columns),
        "columnOrder": [run_name, created, *columns, duration],
        "columnWidths": {run_name: 210, created: 140, **widths, duration: 90},
        "runsHiddenMode": "FIRST_20_RUNS",  # in the charts: the best 20
    }


def deflated(state: dict[str, Any]) -> str:
    """JSON as MLflow's UI compresses it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def shows_views(uri: str) -> bool:
    """Whether the MLflow that serves this store has saved views; an older one would show its plain table."""
    if not uri.startswith(("http://", "https://")):
        import mlflow

        return release(mlflow.__version__) >= OLDEST
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    # asked once and briefly: MLflow's own patience with a dead server is four minutes
    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(credentials, "/version", "GET", max_retries=0, timeout=5)  # type: ignore[no-untyped-call]
    return bool(answer.status_code == 200) and release(answer.text) >= OLDEST


def release(version: str) -> tuple[int, int]:
    """Major and minor of a version such as `3.17.2`."""
    major, minor = version.strip().split(".")[:2]
    return int(major), int(minor)


def view_link(base: str, experiment_id: str, key: str, *, chart: bool = False) -> str:
    """The page of a saved view, as a table or as charts; `base` is the server, `http://127.0.0.1:5000`."""
    query = {**CLASSIC, "viewStateShareKey": key, **({"compareRunsMode": "CHART"} if chart else {})}
    return f"{base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{urlencode(query)}"


def compare_link(base: str, experiment_id: str, run_ids: list[str]) -> str:
    """The page that puts runs side by side and marks what differs, in the order given."""
    runs, experiments = (json.dumps(ids, separators=(",", ":")) for ids in (run_ids, [experiment_id]))
    query = {"runs": runs, "experiments": experiments, **CLASSIC}  # MLflow finds `runs` only behind the `?`
    return f"{base.rstrip('/')}/#/compare-runs?{urlencode(query)}"


def swept_keys(runs: list[dict[str, str]]) -> list[str]:
    """The params that differ among these runs, or that only some have: numbers first, then by name."""
    keys = {key for run in runs for key in run}
    values = {key: {run.get(key) for run in runs} for key in keys}
    swept = [key for key in keys if len(values[key]) > 1]
    return sorted(swept, key=lambda key: (not all(map(is_number, values[key])), key))


def is_number(text: str | None) -> bool:
    """Whether a param's value is a finite number, which MLflow puts on a numeric axis."""
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False


def latest_experiment(client: "MlflowClient") -> str | None:
    """The experiment of the run that was started last; None in a store without runs."""
    experiments: list[str] = []
    token: str | None = None
    while True:
        page = client.search_experiments(page_token=token)
        experiments += [experiment.experiment_id for experiment in page]
        if not (token := page.token):
            break
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    return str(runs[0].info.experiment_id) if runs else None
