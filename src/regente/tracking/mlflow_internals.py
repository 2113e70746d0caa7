"""Every use of MLflow that its documentation does not cover, each with its reason.

tests/tracking/test_mlflow_internals.py fails when a new release of MLflow moves one of them.
"""

import base64
import json
import shlex
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

VIEW_TAG = (
    "mlflow.sharedViewState."  # an experiment tag of this prefix is a saved view of the UI, since MLflow 3.15
)
OLDEST_SERVER = (3, 15)
TABLE_ROWS = 100  # that the UI's table loads; the mean of a group is over those only
# Without it a fresh browser opens the experiment on MLflow's pages for language models.
WORKFLOW = {"workflowType": "machine_learning"}
# MLflow has one exception for most problems. Only its text says which one it is.
OUTDATED_SCHEMA = ("out-of-date database schema", "Can't locate revision")
NO_DATABASE = ("file is not a database",)
DAMAGED_DATABASE = "database disk image is malformed"
NO_ANSWER = ("database is locked", "API request to", "Max retries")


def view_state(columns: dict[str, str], order_by: str, ascending: bool, search: str) -> dict[str, Any]:
    """The state of a table of the UI: its `SearchFacetsState` and `ExperimentPageUIState`.

    There is no public way to save a view. `columns` maps names such as ``metrics.`val/acc` `` to their titles.
    """
    widths = {column: min(max(90, 7 * len(title) + 40), 240) for column, title in columns.items()}
    run_name, created, duration = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
    return {
        "searchFilter": search,
        "orderByKey": order_by,
        "orderByAsc": ascending,
        "selectedColumns": list(columns),
        "columnOrder": [run_name, created, *columns, duration],
        "columnWidths": {run_name: 210, created: 140, **widths, duration: 90},
        "runsHiddenMode": "FIRST_20_RUNS",  # the charts show the best 20
    }


def grouped(keys: list[tuple[str, str]], rows: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """The state of a table whose runs are grouped by params or tags, each group a folded row of means.

    `keys`: `param` or `tag`, and its name; `rows`: the values of each group.
    """
    by = [{"mode": mode, "groupByData": name} for mode, name in keys]
    names = [
        ",".join(f"{mode}.{name}.{value or 'null'}" for (mode, name), value in zip(keys, row, strict=True))
        for row in rows
    ]
    return {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": by},
        "groupsExpanded": dict.fromkeys(names, False),
        "useGroupedValuesInCharts": True,
    }


def charts(title: str, curves: dict[str, bool], params: Sequence[str], metric: str) -> dict[str, Any]:
    """The state of a first section of charts: curves over the steps, and parallel coordinates of params and a metric.

    `curves`: whether the axis of the values is logarithmic, by metric; MLflow begins a linear one at 0, where the ends
    of good runs look alike. MLflow adds a chart for each other metric below, in a section for each prefix.
    """
    section = {"uuid": "regente", "name": title, "display": True, "isReordered": True}
    common = {"metricSectionId": "regente", "deleted": False, "isGenerated": False, "runsCountToCompare": 20}
    lines = [
        {
            **common, "uuid": f"regente-{name}", "type": "LINE", "metricKey": name, "displayName": name,
            "xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "log" if logarithmic else "linear", "range": {},
            "lineSmoothness": 0, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "yAxisKey": "metric",
            "yAxisExpressions": [],
        }
        for name, logarithmic in curves.items()
    ]  # fmt: skip
    parallel = {
        **common, "uuid": "regente-parallel", "type": "PARALLEL", "showAllRuns": True,
        "selectedParams": list(params), "selectedMetrics": [metric],
    }  # fmt: skip
    both = [*lines, *([parallel] if params else [])]
    if not both:
        return {}
    return {"compareRunSections": [section], "compareRunCharts": both, "isAccordionReordered": True}


def view_tag_value(name: str, state: dict[str, Any], before: str | None, now: int) -> str:
    """The value of a saved view's tag, with the state compressed as the UI does it; times in ms since 1970."""
    created = json.loads(before)["createdAt"] if before else now
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": created, "updatedAt": now, "state": packed})


def view_link(base: str, experiment_id: str, key: str, *, chart: bool = False) -> str:
    """The UI's page of a saved view, as a table or as charts; `base` is the server, `http://127.0.0.1:5000`."""
    query = {**WORKFLOW, "viewStateShareKey": key, **({"compareRunsMode": "CHART"} if chart else {})}
    return f"{base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{urlencode(query)}"


def compare_link(base: str, experiment_id: str, run_ids: list[str]) -> str:
    """The UI's page that puts runs side by side in the given order and marks what differs."""
    runs, experiments = (json.dumps(ids, separators=(",", ":")) for ids in (run_ids, [experiment_id]))
    query = {"runs": runs, "experiments": experiments, **WORKFLOW}  # MLflow reads `runs` only after the `?`
    return f"{base.rstrip('/')}/#/compare-runs?{urlencode(query)}"


def run_link(experiment_id: str, run_id: str, page: str = "") -> str:
    """The UI's page of a run, or a tab of it, as a link from another page of the UI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{page}?{urlencode(WORKFLOW)}"


def server_shows_views(uri: str) -> bool:
    """Whether a server's UI has saved views: one request to `/version`, which takes five seconds at most.

    The client has no call for it, and waits four minutes for a dead server; `http_request` brings the credentials.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(credentials, "/version", "GET", max_retries=0, timeout=5)  # type: ignore[no-untyped-call]
    if answer.status_code != 200:
        return False
    major, minor = answer.text.strip().split(".")[:2]
    return (int(major), int(minor)) >= OLDEST_SERVER


def tracking_store(uri: str) -> Any:
    """The store behind a client, with the methods that MLflow calls on a plugin's store."""
    from mlflow.tracking._tracking_service.utils import _get_store

    return _get_store(uri)  # type: ignore[no-untyped-call]


def create_database(uri: str, artifacts: str) -> None:
    """Make a SQLite store; `artifacts`: a URI.

    A client writes its working directory into an SQL text, which a quote or a colon in the name of the folder breaks.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, artifacts)  # type: ignore[no-untyped-call]


def save_example(model: Any, example: Any, path: Path) -> None:
    """Write the input example of a model into its folder, and name it in the model.

    Only `save_model` of a flavor does it publicly, and that of torch's imports torch and pandas.
    """
    from mlflow.models.utils import _save_example

    _save_example(model, example, str(path))


def write_environment(path: Path, requirements: list[str]) -> dict[str, str]:
    """Write the files of a model's environment into its folder; returns their names by the argument of MLflow's pyfunc."""
    from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv

    (path / "requirements.txt").write_text("\n".join(requirements), encoding="utf-8")
    _mlflow_conda_env(str(path / "conda.yaml"), additional_pip_deps=requirements, install_mlflow=False)  # type: ignore[no-untyped-call]
    _PythonEnv.current().to_yaml(path / "python_env.yaml")  # type: ignore[no-untyped-call]
    return {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}


def serving_command(model: str, host: str, port: int, app: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of MLflow's model server; `app`: the ASGI application that wraps MLflow's.

    `mlflow models serve` looks for uvicorn on the PATH, and answers Ctrl-C with a traceback.
    """
    from mlflow.pyfunc.scoring_server import get_cmd

    command, env = get_cmd(model, port=port, host=host, nworkers=1)  # type: ignore[arg-type]
    words = shlex.split(command)[:-1]  # the last one names MLflow's own app
    # the server's lifespan does nothing, but answers Ctrl-C with a traceback too
    return [sys.executable, "-m", *words, "--lifespan", "off", app], env
