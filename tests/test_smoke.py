"""One short run of the program for each capability: the part of `make quick` that trains."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Ended

SHORT = ["digits_mlp", "data.batch_size=512", "trainer=cpu"]


@pytest.mark.smoke
@pytest.mark.usefixtures("store")
def test_a_run_is_trained_recorded_evaluated_asked_exported_and_resumed(
    regente: Callable[..., Ended], project: Path
) -> None:
    np.save(project / "x.npy", np.zeros((2, 1, 28, 28), np.uint8))
    for words in (
        ("train", *SHORT, "trainer.max_epochs=1"),
        ("evaluate", "latest"),
        ("predict", "latest", "x.npy"),
        ("export", "latest", "--format", "torch"),
        ("resume", "latest", "trainer.max_epochs=2"),
        ("sync",),
    ):
        ended = regente(*words)
        assert ended.code == 0, f"{' '.join(words)}: {ended.err}"
    assert (project / "mlflow.db").is_file() and list(project.glob("runs/digits_mlp/*/export/model.pt2"))


@pytest.mark.smoke
@pytest.mark.usefixtures("store")
def test_a_sweep_runs_and_is_not_run_twice(regente: Callable[..., Ended], project: Path) -> None:
    words = ["train", *SHORT, "trainer.max_epochs=1", "-m", "seed=1,2"]
    assert regente(*words, cold=True).code == 0  # with the fork server as it ships
    assert len(list(project.glob("runs/digits_mlp/sweep-*/*/result.json"))) == 2
    assert regente(*words).code == 0
    assert len(list(project.glob("runs/digits_mlp/sweep-*/*/result.json"))) == 2
    (model,) = project.rglob("MLmodel")  # that of the best job, and none twice
    best = max(
        project.glob("runs/*/*/*/result.json"),
        key=lambda each: json.loads(each.read_text())["metrics"]["val/acc"],
    )
    assert json.loads((best.parent / "recorded.json").read_text())["run_id"] in model.read_text()


@pytest.mark.smoke
def test_two_ranks_train_one_run(regente: Callable[..., Ended], project: Path) -> None:
    assert regente("train", *SHORT, "trainer.max_epochs=1", "trainer.devices=2", "tracking=none").code == 0
    assert len(list(project.glob("runs/digits_mlp/*/result.json"))) == 1
