import base64
import json
import shutil
import socket
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow.entities import Metric, Param

from regente.tracking.mlflow_internals import compare_link, view_link
from regente.tracking.store import all_runs
from regente.tracking.view import grouping, latest_experiment, log_view, swept_keys, view_key, write_view

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Store = tuple["MlflowClient", str]


# MLflow 3.17's own use of SQLAlchemy 2.1, November 2026
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store to copy: making one takes MLflow seconds."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").create_experiment("digits", artifact_location=file.parent.as_uri())
    return file


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Store:
    from mlflow.tracking import MlflowClient

    file = shutil.copy(migrated, tmp_path)
    return MlflowClient(f"sqlite:///{file}"), "1"


def saved(store: Store, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    client, experiment = store
    envelope = json.loads(client.get_experiment(experiment).tags[f"mlflow.sharedViewState.{key}"])
    method, _, text = envelope["state"].partition(";")
    assert method == "deflate"
    return envelope, json.loads(zlib.decompress(base64.b64decode(text)))


def write(store: Store, **changes: Any) -> bool:
    wanted: dict[str, Any] = {
        "key": "regente",
        "name": "Leaderboard",
        "metrics": ["best/val/acc", "val/acc", "val/loss"],
        "params": ["optimizer.lr"],
        "ascending": False,
        "parent": None,
    }
    return write_view(*store, **(wanted | changes))


def test_the_view_has_the_monitored_metric_then_the_others_then_the_swept_params(store: Store) -> None:
    assert write(store)
    envelope, state = saved(store, "regente")
    columns = ["metrics.`best/val/acc`", "metrics.`val/acc`", "metrics.`val/loss`", "params.`optimizer.lr`"]
    assert envelope["name"] == "Leaderboard"
    assert state["selectedColumns"] == columns
    assert state["columnOrder"][2:-1] == columns


def test_its_filter_and_order_find_the_children_of_the_sweep_best_first(store: Store) -> None:
    client, experiment = store
    parent, other = (client.create_run(experiment).info.run_id for _ in range(2))
    children: dict[float, str] = {}
    for owner, score in ((parent, 0.5), (parent, 0.9), (other, 0.99), (parent, float("nan"))):
        run = client.create_run(experiment, tags={"mlflow.parentRunId": owner})
        client.log_metric(run.info.run_id, "best/val/acc", score)
        if owner == parent:
            children[score] = run.info.run_id
    assert write(store, parent=parent)
    _, state = saved(store, "regente")
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([experiment], state["searchFilter"], order_by=[order])
    assert [run.info.run_id for run in found][:2] == [children[0.9], children[0.5]]
    assert len(found) == 3


def test_without_a_sweep_the_view_holds_all_runs_and_ascends_if_less_is_better(store: Store) -> None:
    assert write(store, metrics=["val/loss"], ascending=True)
    _, state = saved(store, "regente")
    assert (state["searchFilter"], state["orderByKey"], state["orderByAsc"]) == (
        "",
        "metrics.`val/loss`",
        True,
    )


def test_runs_that_differ_in_the_seed_alone_are_one_row_of_the_view(store: Store) -> None:
    client, experiment = store
    parent = client.create_run(experiment).info.run_id
    for lr, width, seed in [("0.1", "8", "0"), ("0.1", "8", "1"), ("0.01", "16", "0"), ("0.01", "16", "1")]:
        tags = {"mlflow.parentRunId": parent, "regente.swept": "optimizer.lr, seed"}
        run = client.create_run(experiment, tags=tags | {"regente.experiment": "digits"}).info.run_id
        params = {"model.width": width, "optimizer.lr": lr, "seed": seed, "data.seed": seed}
        metrics = [Metric("val/acc", 0.5, 0, 0), Metric("val/r2", -0.5, 0, 0), Metric("val/loss", 2.0, 0, 0)]
        client.log_batch(run, metrics, [Param(*each) for each in params.items()])
    runs = all_runs(client, experiment, f"tags.mlflow.parentRunId = '{parent}'")
    assert log_view(client, experiment, parent, {"metric": "val/r2", "mode": "max"})
    _, state = saved(store, view_key(experiment, parent))
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "optimizer.lr"}]
    folded = {"param.optimizer.lr.0.1": False, "param.optimizer.lr.0.01": False}
    assert state["groupsExpanded"] == folded
    assert "params.`seed`" not in state["selectedColumns"]  # its mean says nothing
    axes = {chart.get("metricKey"): chart.get("scaleType") for chart in state["compareRunCharts"]}
    assert axes == {"val/r2": "linear", "val/loss": "log", None: None}
    assert state["compareRunCharts"][-1]["selectedParams"] == ["model.width", "optimizer.lr"]
    seeds = [run for run in runs if run.data.params["optimizer.lr"] == "0.1"]
    assert grouping(seeds) == ([("tag", "regente.experiment")], {("digits",)})
    assert grouping(runs[:1]) is None
    assert grouping(runs * 26) is None  # more than the table loads: the means would be those of a part


def test_a_view_written_again_is_replaced_and_keeps_its_birthday(store: Store) -> None:
    assert write(store)
    first, _ = saved(store, "regente")
    time.sleep(0.01)
    assert write(store, name="Again")
    second, _ = saved(store, "regente")
    assert second["name"] == "Again"
    assert second["createdAt"] == first["createdAt"] < second["updatedAt"]


def test_what_the_store_refuses_is_no_error(store: Store) -> None:
    assert not write(store, key="no@such:key[]")
    assert not write((store[0], "4711"))


def test_a_server_that_does_not_answer_is_given_up_at_once() -> None:
    from mlflow.tracking import MlflowClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    begin = time.monotonic()
    assert not write((MlflowClient(tracking_uri=uri), "1"))
    assert time.monotonic() - begin < 60  # MLflow alone would ask for minutes


class OldServer(BaseHTTPRequestHandler):
    """Says that it is MLflow 3.14, which has no saved views, and nothing else."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path == "/version" else 500)
        self.end_headers()
        self.wfile.write(b"3.14.2")

    def log_message(self, *_: Any) -> None: ...


def test_a_server_too_old_for_saved_views_gets_none() -> None:
    from mlflow.tracking import MlflowClient

    with ThreadingHTTPServer(("127.0.0.1", 0), OldServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert not write((MlflowClient(tracking_uri=f"http://127.0.0.1:{server.server_port}"), "1"))
        assert set(OldServer.asked) == {"/version"}
        server.shutdown()


def test_links_survive_the_way_through_a_terminal() -> None:
    table = view_link("http://127.0.0.1:5000/", "1", "a b")
    assert table == (
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=a+b"
    )
    assert view_link("http://127.0.0.1:5000", "1", "a b", chart=True) == table + "&compareRunsMode=CHART"
    link = compare_link("http://127.0.0.1:5000", "1", ["aa", "bb"])
    assert not set(link) & set("[]\"' ")
    query = parse_qs(urlsplit(urlsplit(link).fragment).query)
    assert (query["runs"], query["experiments"]) == (['["aa","bb"]'], ['["1"]'])


def test_swept_are_the_params_that_differ_numbers_first() -> None:
    runs = [
        {"model": "mlp", "model.widths": "[64]", "optimizer.lr": "1e-3", "seed": "0"},
        {"model": "cnn", "optimizer.lr": "0.01", "seed": "0"},
    ]
    assert swept_keys(runs) == ["optimizer.lr", "model", "model.widths"]
    assert swept_keys(runs[:1]) == []
    seeds = [{"seed": seed, "data.seed": seed, "tasks": "0"} for seed in "012"]
    assert swept_keys(seeds) == ["seed"]
    assert swept_keys([]) == []


def test_the_latest_experiment_is_the_one_of_the_last_run(store: Store) -> None:
    client, digits = store
    assert latest_experiment(client) is None
    mnist = client.create_experiment("mnist")
    client.create_run(mnist, start_time=1000)
    client.create_run(digits, start_time=2000)
    client.create_experiment("empty")
    assert latest_experiment(client) == digits
