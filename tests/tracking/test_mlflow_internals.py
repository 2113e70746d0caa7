"""What Regente uses of MLflow without documentation is where this release of MLflow has it."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from regente.errors import TrackingError
from regente.tracking import mlflow_internals as internals
from regente.tracking.store import open_store

# MLflow 3.17's own use of SQLAlchemy 2.1, November 2026
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
SCRIPTS = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"


@pytest.fixture(scope="module")
def ui() -> str:
    """The program of MLflow's UI, as the package brings it."""
    return "".join(file.read_text(encoding="utf-8") for file in sorted(SCRIPTS.rglob("*.js")))


def test_the_ui_knows_every_word_of_a_saved_view(ui: str) -> None:
    state = internals.view_state({"metrics.`val/acc`": "val/acc"}, "metrics.`val/acc`", False, "")
    grouped = internals.grouped([("param", "seed"), ("tag", "a")], [("1", "b")])
    charts = internals.charts("The sweep", {"val/loss": True, "val/acc": False}, ["seed"], "val/acc")
    drawn = [word for chart in charts["compareRunCharts"] for word in (*chart, chart["type"])]
    groups = [word for key in grouped["groupBy"]["groupByKeys"] for word in (*key, key["mode"])]
    state |= grouped | charts
    envelope = json.loads(internals.view_tag_value("All jobs", state, None, 1))
    packing = envelope["state"].partition(";")[0]
    columns = [column for column in state["columnOrder"] if not column.startswith("metrics.")]
    titles = [column.removeprefix("attributes.`").removesuffix("`") for column in columns]
    words = [internals.VIEW_TAG, packing, *envelope, *state, *titles, state["runsHiddenMode"]]
    words += [*drawn, *groups, *grouped["groupBy"], *charts["compareRunSections"][0], "log", "linear"]
    assert [word for word in words if word not in ui] == []


def test_the_ui_knows_every_word_of_a_link(ui: str) -> None:
    table = internals.view_link("http://127.0.0.1:5000", "1", "key", chart=True)
    compare = internals.compare_link("http://127.0.0.1:5000", "1", ["a", "b"])
    words = [word for link in (table, compare) for word in re.findall(r"[A-Za-z_-]+", link.partition("#")[2])]
    assert {"viewStateShareKey", "compare-runs", "experiments"} <= set(words)
    assert [word for word in words if word not in (*"ab", "key", "B", "D", "C") and word not in ui] == []


# MLflow warns of a type hint in its own module
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")
def test_the_model_server_is_a_uvicorn_command_and_knows_the_model_from_its_environment(
    tmp_path: Path,
) -> None:
    command, env = internals.serving_command(str(tmp_path), "127.0.0.1", 5001, "a:app")
    assert command[1:3] == ["-m", "uvicorn"]
    assert {"--host", "127.0.0.1", "--port", "5001", "--lifespan"} <= set(command)
    assert command[-1] == "a:app" and not any("mlflow" in word for word in command[1:])
    assert any(str(tmp_path) in value for value in env.values())


def test_a_file_that_is_no_database_is_recognized_by_its_message(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, and longer than the header of one" * 40)
    with pytest.raises(TrackingError, match="that file is no SQLite database"):
        open_store("sqlite:///mlflow.db", tmp_path, "Default")


def test_a_database_of_another_release_is_recognized_by_its_message(
    empty_store: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(shutil.copy(empty_store, tmp_path / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError, match="of another version of MLflow"):
        open_store("sqlite:///mlflow.db", tmp_path, "Default")


def test_a_server_that_does_not_answer_is_recognized_by_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as error:
        MlflowClient("http://127.0.0.1:9").get_experiment("1")
    assert any(each in str(error.value) for each in internals.NO_ANSWER)


@pytest.mark.filterwarnings("ignore")  # those of mlflow.pytorch, which is imported here
def test_a_models_folder_is_that_which_mlflows_own_flavor_writes(tmp_path: Path) -> None:
    import mlflow.pytorch
    import numpy as np
    import torch
    import yaml
    from mlflow.models import Model, infer_signature

    from regente.tracking.logged_model import OUTPUTS, PROGRAM, _write

    example, net = np.zeros((2, 3), np.float32), torch.nn.Linear(3, 1)
    mlflow.pytorch.save_model(
        net,
        tmp_path / "theirs",
        input_example=example,
        signature=infer_signature(example, np.zeros((2, 1), np.float32)),
        serialization_format="pt2",
        pip_requirements=["torch", "mlflow", "numpy"],
    )
    (tmp_path / "exported").mkdir()
    shutil.copy(tmp_path / "theirs/data/model.pt2", tmp_path / "exported" / PROGRAM)
    np.save(tmp_path / "exported" / OUTPUTS, np.zeros((2, 1), np.float32))
    _write(tmp_path / "ours", Model(), tmp_path / "exported", example)
    theirs, ours = (
        {str(each.relative_to(tmp_path / name)) for each in (tmp_path / name).rglob("*") if each.is_file()}
        for name in ("theirs", "ours")
    )
    assert ours == theirs
    theirs_written, written = (
        yaml.safe_load((tmp_path / name / "MLmodel").read_text()) for name in ("theirs", "ours")
    )
    assert written["signature"] == theirs_written["signature"]
    assert written["saved_input_example_info"] == theirs_written["saved_input_example_info"]
    assert (
        written["flavors"]["python_function"].items() <= theirs_written["flavors"]["python_function"].items()
    )
    assert mlflow.pyfunc.load_model(str(tmp_path / "ours")).predict(example).shape == (2, 1)


def test_the_store_behind_a_client_is_that_of_its_address(empty_store: Path) -> None:
    assert internals.tracking_store(f"sqlite:///{empty_store}").get_experiment("0").name == "Default"
