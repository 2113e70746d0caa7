"""What a user's code logs by itself lands in the run: `mlflow.*`, `self.logger.experiment`, hyperparameters."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.jobs.job import freeze
from regente.tracking.journal import read
from regente.tracking.lightning_logger import JournalLogger
from regente.tracking.recorder import Recorder
from regente.tracking.user_calls import JournalStore, UserCalls


@pytest.fixture
def recorder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A recording without a store: the journal is all of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    made = compose("digits_mlp", ["tracking=none"])
    job = freeze(made.yaml(), Path("runs"), experiment="e", overrides=[], command=[], choices={})
    found = Recorder(job, resolve(made.node), 0, Redactor(["hidden"]))
    found.start()
    yield found
    found.finish("FINISHED")
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///elsewhere.db"
    assert not (project / "elsewhere.db").exists()
    assert mlflow.active_run() is None


def logged(recorder: Recorder, kind: str) -> dict[str, object]:
    lines = read(recorder.job.journal, 0)[0]
    step = "step" if kind == "metrics" else "kind"
    return {
        key: (v, line[step]) for line in lines if line["kind"] == kind for key, v in line["values"].items()
    }


def files(recorder: Recorder) -> set[str]:
    folder = recorder.job.path / "artifacts"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def figure() -> Figure:
    made = Figure()
    made.subplots().plot([1, 2])
    return made


def test_calls_of_mlflow_land_in_the_run(recorder: Recorder) -> None:
    mlflow.set_experiment("mine")
    mlflow.log_metric("fluent", 1.5, step=3)
    mlflow.log_params({"mine": 7, "key": "hidden"})
    mlflow.set_tag("who", "me")
    mlflow.set_tag("password", "swordfish")
    mlflow.log_param("token", "swordfish")
    with mlflow.start_run(nested=True):
        mlflow.log_metrics({"inner": 2.0})
    mlflow.log_figure(figure(), "plots/fluent.png")
    mlflow.log_dict({"a": 1}, "fluent.json")
    MlflowClient().log_text(mlflow.active_run().info.run_id, "hi", "client.txt")
    assert logged(recorder, "metrics") == {"fluent": (1.5, 3), "inner": (2.0, 0)}
    assert logged(recorder, "params") == {
        "mine": ("7", "params"),
        "key": ("***", "params"),
        "token": ("***", "params"),
    }
    assert logged(recorder, "tags")["who"] == ("me", "tags")
    assert "swordfish" not in recorder.job.journal.read_text()
    assert files(recorder) == {"plots/fluent.png", "fluent.json", "client.txt"}


def test_two_jobs_of_one_name_have_each_its_own_files(project: Path) -> None:
    made = compose("digits_mlp", ["tracking=none"])
    facts: dict[str, Any] = {"experiment": "e", "overrides": [], "command": [], "choices": {}}
    for folder in ("one", "two"):
        job = freeze(made.yaml(), Path(folder), "same", **facts)
        recording = Recorder(job, resolve(made.node), 0, Redactor([]))
        recording.start()
        mlflow.log_text(folder, "word.txt")
        recording.finish("FINISHED")
    for folder in ("one", "two"):
        assert (project / folder / "same/artifacts/word.txt").read_text() == folder


def test_another_store_that_the_code_chooses_is_said(recorder: Recorder) -> None:
    mlflow.set_tracking_uri("sqlite:///chosen.db")
    assert recorder.calls.end() == mlflow.get_tracking_uri() == "sqlite:///chosen.db"
    with pytest.raises(MlflowException, match="no training is recorded in this process"):
        JournalStore("regente://x").get_run("x")
    mlflow.set_tracking_uri("sqlite:///before.db")  # by a script that starts a training
    recorder.calls = UserCalls(recorder)
    mlflow.log_metric("fluent", 1.0)
    assert recorder.calls.end() == ""
    assert mlflow.get_tracking_uri() == "sqlite:///before.db"
    mlflow.set_tracking_uri("")
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///elsewhere.db"  # which it has emptied
    recorder.calls = UserCalls(recorder)
    assert logged(recorder, "metrics") == {"fluent": (1.0, 0)}


def test_the_experiment_of_the_logger_has_the_calls_that_people_know(
    recorder: Recorder, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = JournalLogger(recorder.journal, recorder.job)
    board, run = logger.experiment, logger.run_id
    logger.log_metrics({"val/loss": 1.0}, step=6)
    board.add_scalar("tb/x", torch.tensor(2.0), 4)
    board.add_scalars("tb/all", {"a": 1, "b": 2}, 4)
    board.log({"wandb": 5.0, "words": "no number"})
    board.log_metric(run, "client", 3.0, step=5)
    board.log_metric("plain", 4.0, 7)
    found = logged(recorder, "metrics")
    assert found == {
        "val/loss": (1.0, 6), "tb/x": (2.0, 4), "tb/all/a": (1.0, 4), "tb/all/b": (2.0, 4), "wandb": (5.0, 6),
        "client": (3.0, 5), "plain": (4.0, 7),
    }  # fmt: skip
    (project / "mine.txt").write_text("mine")
    board.add_image("a/image", torch.rand(3, 8, 8), 4)
    board.add_images("many", torch.rand(2, 1, 8, 8))
    board.add_figure("a/figure", figure(), 4)
    board.add_text("../text", "words")
    board.log_figure(run, figure(), "b.png")
    board.log_figure(figure(), "c.png")
    board.log_figure("d", figure())
    board.log_image(run, np.zeros((8, 8, 3)), "e.png")
    board.log_dict({"b": 2}, "f.json")
    board.log_text("t", "g.txt")
    board.log_artifact("mine.txt")
    logger.log_image("h", [torch.rand(8, 8)], step=2)
    assert files(recorder) == {
        "a/image/step-00000004.png", "many/0.png", "many/1.png", "a/figure/step-00000004.png", "__/text.txt",
        "b.png", "c.png", "d.png", "e.png", "f.json", "g.txt", "mine.txt", "h/step-00000002.png",
    }  # fmt: skip
    for _ in range(2):
        board.add_histogram("h", torch.rand(3), 4)
        board.flush()
    out = capsys.readouterr().out
    assert out.count("self.logger.experiment.add_histogram is left out") == 1


def test_hyperparameters_are_params_and_objects_among_them_are_not(recorder: Recorder) -> None:
    for _ in range(2):
        logger = JournalLogger(recorder.journal, recorder.job, recorder.redact)
        logger.log_hyperparams(
            {"width": 3, "net": torch.nn.Linear(1, 1), "key": "hidden", "api_key": "swordfish"},
            {"hp_metric": 1.0},
        )
    lines = [line for line in read(recorder.job.journal, 0)[0] if line["kind"] == "params"]
    assert [line["values"] for line in lines] == [
        {"hparams.width": "3", "hparams.key": "***", "hparams.api_key": "***"}
    ]
    assert json.loads(json.dumps(logged(recorder, "metrics"))) == {"hp_metric": [1.0, 0]}
