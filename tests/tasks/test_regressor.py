"""The squared error, the absolute error in the data's units, and the real program on a series."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor, nn

from regente.config.check import check
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.core.batches import Batches
from regente.data.core.sources import Split
from regente.errors import ConfigError
from regente.tasks.regressor import Regressor
from regente.tracking.figures import outcomes
from tests.conftest import Ended

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.* is deprecated:FutureWarning"  # Lightning 2.6 on torch 2.15, 2026-11
)
X, Y = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [0.0], [2.0]])


class Identity(nn.Module):
    """x -> weight * x, which begins as x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class Tens(LightningDataModule):
    """Three samples, the unit of the targets being ten times the model's."""

    def test_dataloader(self) -> Batches:
        return Batches(Split(X, Y), 2)

    val_dataloader = test_dataloader

    def unscale(self, y: Tensor) -> Tensor:
        return 10 * y + 3

    def naive_mae(self, split: str) -> float:
        return {"test": 7.5}[split]


def task(model: nn.Module | None = None) -> Regressor:
    return Regressor(model or Identity(), torch.optim.Adam, None, monitor="val/loss")


def trainer() -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **quiet)


def test_the_loss_is_the_mean_squared_error() -> None:
    loss = task().training_step((X, Y), 0)
    assert loss.item() == pytest.approx((0**2 + 2**2 + 2**2) / 3)
    loss.backward()


def test_means_are_over_samples_whatever_the_batches_and_errors_are_in_the_datas_units() -> None:
    runs = trainer()
    runs.test(task(), datamodule=Tens(), verbose=False)
    tested = {name: value.item() for name, value in runs.callback_metrics.items()}
    assert tested == pytest.approx({"test/loss": 8 / 3, "test/mae": 40 / 3, "test/naive_mae": 7.5})
    runs.validate(task(), datamodule=Tens(), verbose=False)
    validated = {
        name: value.item() for name, value in runs.callback_metrics.items() if name.startswith("val/")
    }
    assert validated == pytest.approx({"val/loss": 8 / 3, "val/mae": 40 / 3})


def test_without_a_data_module_that_knows_a_scale_units_are_the_models() -> None:
    runs = trainer()
    runs.test(task(), dataloaders=Batches(Split(X, Y), 3), verbose=False)
    tested = {name: value.item() for name, value in runs.callback_metrics.items()}
    assert tested == pytest.approx({"test/loss": 8 / 3, "test/mae": 4 / 3})


def test_outputs_of_another_shape_than_the_targets_are_refused_instead_of_broadcast() -> None:
    with pytest.raises(ConfigError, match=r"gives \[3, 2\], the targets are \[3, 1\]; model.num_classes=1"):
        task(nn.Linear(1, 2)).training_step((X, Y), 0)
    with pytest.raises(ConfigError, match=r"the targets are \[3\]; the data wants task=classifier"):
        task(nn.Linear(1, 2)).training_step((X, torch.tensor([0, 1, 1])), 0)


def test_watching_what_a_regressor_does_not_log_is_refused() -> None:
    def problems(*overrides: str) -> list[str]:
        return [str(problem) for problem in check(resolve(compose("series_forecast", overrides).node))]

    assert problems("monitor.metric=val/mae") == []
    assert problems("monitor.metric=val/acc") == [
        "monitor.metric=val/acc: never logged; did you mean val/mae? logged: train/loss, val/loss, val/mae"
    ]


def test_a_forecast_beats_saying_that_nothing_changes(regente: Callable[..., Ended], project: Path) -> None:
    ended = regente("train", "series_forecast", "trainer.max_epochs=4", "tracking=none")
    assert ended.code == 0, ended.err
    (file,) = project.rglob("result.json")
    result = json.loads(file.read_text())
    metrics = result["metrics"]
    assert set(metrics) == {"val/loss", "val/mae", "test/loss", "test/mae", "test/naive_mae"}
    assert 0.16 < metrics["test/mae"] < 0.7 * metrics["test/naive_mae"]
    found = np.load(file.parent / "test.npz")
    assert np.abs(found["label"] - found["prediction"]).mean() == pytest.approx(metrics["test/mae"], rel=1e-5)
    assert 15 < found["label"].mean() < 25  # of a load around 20
    assert list(outcomes(file.parent / "test.npz")) == ["predicted_against_true"]
    scale = torch.load(result["best_checkpoint"], weights_only=True)["Series"]
    assert scale["columns"] == ["load", "weather"]
    assert 15 < scale["mean"] < 25
