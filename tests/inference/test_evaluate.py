"""A run is evaluated anew: the same numbers, tables and figures, a child in MLflow; other data with the same facts."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import classification_report

from regente.data.series import Series
from regente.inference.evaluate import _print_differences
from regente.inference.metrics import by_class, sample_metrics
from regente.jobs.console import terminal
from tests.conftest import Ended
from tests.published import save_arrays
from tests.training.test_fit import FAST, query, until

Run = Callable[..., Ended]
SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=5", "tracking=none"]


def job(project: Path) -> Path:
    (path,) = (file.parent for file in (project / "runs").glob("*/*/result.json"))
    return path


def evaluation(project: Path) -> Path:
    (path,) = job(project).glob("evaluation-*")
    return path


def measured(project: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((evaluation(project) / "evaluation.json").read_text())["metrics"]
    return metrics


@pytest.mark.usefixtures("store")
def test_a_run_is_evaluated_to_the_bit_as_a_child_of_its_mlflow_run(regente: Run, project: Path) -> None:
    assert regente("train", *FAST).code == 0
    result = json.loads((job(project) / "result.json").read_text())
    ended = regente("evaluate", "digits_mlp:best")
    assert (ended.code, ended.err) == (0, "")
    assert "as trained  equal to the bit" in ended.out
    metrics = measured(project)
    assert {name: metrics[name] for name in result["metrics"]} == result["metrics"]
    assert set(metrics) - set(result["metrics"]) == {"val/ece", "test/ece"}

    with np.load(evaluation(project) / "test.npz") as found:
        right = classification_report(found["label"], found["prediction"], output_dict=True, zero_division=0)
    rows = list(csv.DictReader((evaluation(project) / "test.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [str(digit) for digit in range(10)]
    for row in rows:
        for name, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("support",) * 2):
            assert float(row[name]) == pytest.approx(right[row["class"]][theirs], abs=1e-6)
    assert f"{float(rows[8]['f1']):.4f}" in ended.out

    state = evaluation(project) / "recorded.json"
    until(lambda: json.loads(state.read_text()).get("complete") is True)
    child, parent = (
        json.loads((path / "recorded.json").read_text())["run_id"] for path in (state.parent, job(project))
    )
    tags = dict(query(project, f"select key, value from tags where run_uuid = '{child}'"))
    assert tags["mlflow.parentRunId"] == parent
    assert tags["regente.kind"] == "evaluation"
    logged = dict(query(project, f"select key, value from latest_metrics where run_uuid = '{child}'"))
    assert logged == pytest.approx(metrics)
    kept = {file.name for file in (project / "mlartifacts/digits_mlp" / child).rglob("*") if file.is_file()}
    assert {"confusion_matrix.svg", "worst_mistakes.svg", "calibration.svg", "test.csv", "val.csv"} <= kept
    assert "validation_worst_mistakes.svg" in kept and "learning_curves.svg" not in kept
    assert regente("evaluate", child).code == 6  # which is no run itself


@pytest.mark.parametrize("experiment", ["digits_cnn", "series_forecast", "series_direction", "text_lstm"])
def test_every_kind_of_run_is_evaluated_to_the_bit(experiment: str, regente: Run, project: Path) -> None:
    assert regente("train", experiment, *SMALL).code == 0
    ended = regente("evaluate")
    assert (ended.code, ended.err) == (0, "")
    assert "as trained  equal to the bit" in ended.out
    before = json.loads((job(project) / "result.json").read_text())["metrics"]
    metrics = measured(project)
    assert {name: metrics[name] for name in before} == before
    assert ("test/rmse" in metrics) is (experiment == "series_forecast")


def test_other_data_with_the_same_facts_is_taken_and_any_other_refused(regente: Run, project: Path) -> None:
    save_arrays(project)
    own = [f"data.path={project}/own.npz", "data.num_classes=10"]
    assert regente("train", "digits_mlp", "trainer=debug", "tracking=none").code == 0
    ended = regente("evaluate", "latest", "data=arrays", *own, "data.input_shape=[1,28,28]")
    assert ended.code == 2
    assert "[1, 28, 28], but samples are [3, 12, 16]" in ended.err
    ended = regente(
        "evaluate",
        "latest",
        "data=arrays",
        *own,
        "data.input_shape=[3,12,16]",
        "trainer.limit_val_batches=2.0",
    )
    assert ended.code == 2
    ended = regente("evaluate", "data=arrays", *own, "data.input_shape=[3,12,16]")
    assert ended.code == 2
    assert ended.lines == ["data.input_shape: [3, 12, 16]; the run's weights are made for [1, 28, 28]"]
    ended = regente("evaluate", "latest", "model.widths=[8]", "seed=2")
    assert ended.code == 2
    assert len(ended.lines) == 2 and "an evaluation may change data, trainer, tracking" in ended.lines[0]
    ended = regente("evaluate", "latest", "data.split_sed=1")
    assert ended.code == 2
    assert ended.lines == ["data.split_sed: no such setting; did you mean data.split_seed?"]
    assert list(job(project).glob("evaluation-*/evaluation.json")) == []

    ended = regente("evaluate", "data.split_seed=1", "data.batch_size=100")
    assert (ended.code, ended.err) == (0, "")
    assert "as trained" not in ended.out
    assert "test/acc" in json.loads(next(job(project).glob("*/evaluation.json")).read_text())["metrics"]


def test_the_classes_of_other_photos_are_those_of_the_run(regente: Run, project: Path) -> None:
    for folder, classes in (("one", "abc"), ("other", "abd")):
        for name in (f"{split}/{each}" for split in ("train", "val", "test") for each in classes):
            place = project / folder / name
            place.mkdir(parents=True)
            for number in range(4):
                pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    words = ["model=transfer", "model.backbone=squeezenet1_1", "model.weights=null", "data.resolution=32"]
    ended = regente("train", "folder_cnn", *words, f"data.root={project}/one", *SMALL)
    assert ended.code == 0, ended.err
    ended = regente("evaluate", "latest", f"data.root={project}/other")
    assert ended.code == 2
    assert "data.class_names: not the directories in" in ended.err and "(c, d)" in ended.err


def test_a_run_without_weights_is_said_to_have_none(regente: Run, project: Path) -> None:
    assert regente("train", "digits_mlp", "trainer=debug", "tracking=none", "callbacks=none").code == 0
    ended = regente("evaluate")
    assert ended.code == 5
    assert len(ended.lines) == 1 and "kept no weights" in ended.err
    assert list(job(project).glob("evaluation-*")) == []


def test_the_calibration_error_is_that_of_a_hand_made_case(tmp_path: Path) -> None:
    label, prediction = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    confidence = np.array([0.9, 0.9, 0.9, 0.6], dtype=np.float32)
    np.savez(
        tmp_path / "test.npz", label=label, prediction=prediction, confidence=confidence, names=["a", "b"]
    )
    metrics, rows = sample_metrics(tmp_path / "test.npz")
    assert metrics["ece"] == pytest.approx(3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.4, abs=1e-6)
    assert rows[0] == ("a", pytest.approx(2 / 3), 1.0, pytest.approx(0.8), 2)


def test_a_class_without_samples_has_a_row_of_zeros() -> None:
    rows = by_class(torch.tensor([0, 0]), torch.tensor([0, 0]), ["a", "b", "c"])
    assert rows[1:] == [("b", 0.0, 0.0, 0.0, 0), ("c", 0.0, 0.0, 0.0, 0)]


def test_another_series_is_scaled_as_the_run_has_learned(tmp_path: Path) -> None:
    own = Series(batch_size=8, target="load", window=4, input_shape=[4, 2])
    own.setup("fit")
    learned = json.loads(json.dumps(own.fitted_state()))
    table = np.stack([np.linspace(0, 90, 400), np.linspace(5, 1, 400)], axis=1)
    text = "weather,load\n" + "".join(f"{load},{weather}\n" for weather, load in table[:, ::-1])
    (tmp_path / "other.csv").write_text(text)
    other = Series(
        batch_size=8, target="load", window=4, input_shape=[4, 2], path=str(tmp_path / "other.csv")
    )
    other.load_fitted_state(learned)
    other.setup("fit")
    mean, std = own.scales["weather"]
    first = (
        other.splits["train"].table[:3] * torch.tensor([own.std, std]) + torch.tensor([own.mean, mean])
    ).numpy()
    assert first[:, 1] == pytest.approx(table[:3, 0], abs=1e-4)
    assert first[:, 0] == pytest.approx(table[:3, 1], abs=1e-4)
    assert other.unscale(torch.tensor(0.0)) == own.mean


def test_a_difference_is_told_from_rounding_and_from_what_only_the_training_logs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(now: dict[str, float]) -> str:
        _print_differences(terminal(quiet=False), {"val/acc": 0.5, "val/seen": 30.0, "train/loss": 1.0}, now)
        return capsys.readouterr().out

    assert "equal to the bit" in said({"val/acc": 0.5, "val/seen": 30.0})
    assert "equal within 1e-05: val/acc" in said({"val/acc": 0.5 + 1e-9, "val/seen": 30.0})
    assert "differs: val/acc 0.6, was 0.5" in said({"val/acc": 0.6, "val/seen": 30.0})
    left_out = said({"val/acc": 0.5})
    assert "val/seen: logged by a callback" in left_out and "equal to the bit" in left_out
    assert "as trained" not in said({"val/other": 1.0})
