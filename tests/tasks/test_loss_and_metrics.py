"""A configured loss takes the place of the task's own; configured metrics are of all samples of a split."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torchmetrics import BootStrapper, F1Score, MeanSquaredError
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy

from regente.config.check import check
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.core.batches import Batches
from regente.data.core.sources import Split
from regente.errors import ConfigError
from regente.tasks.classifier import Classifier
from regente.tasks.language_model import LanguageModel
from regente.tasks.regressor import Regressor
from regente.tasks.supervised import Supervised
from regente.training.assemble import make_loss_and_metrics
from regente.training.complete import complete
from tests.conftest import Ended
from tests.training.test_fit import jobs

pytestmark = pytest.mark.filterwarnings("ignore")
Run = Callable[..., Ended]


class Data(LightningDataModule):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.split = Split(x, y)

    def val_dataloader(self) -> Batches:
        return Batches(self.split, 4)  # the last batch has 2


def values(task: Supervised, x: Tensor, y: Tensor) -> dict[str, float]:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", **quiet)
    trainer.validate(task, datamodule=Data(x, y), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def made(kind: type[Supervised], **given: Any) -> Supervised:
    return kind(nn.Identity(), torch.optim.SGD, None, "val/loss", **given)


def test_metrics_of_classes_get_probabilities_and_are_of_the_whole_split() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.rand(10, 3, generator=generator),
        torch.arange(10) % 3,
    )  # as logits in 0 to 1, which look like neither
    metrics = {"top2": MulticlassAccuracy(3, top_k=2), "f1": F1Score("multiclass", num_classes=3)}
    found = values(made(Classifier, metrics=metrics), x, y)
    assert found["val/top2"] == pytest.approx(float(multiclass_accuracy(x, y, 3, top_k=2)))
    assert found["val/f1"] == pytest.approx(found["val/acc"])  # its mean over samples is the accuracy
    two = y.clamp(max=1)
    found = values(made(Classifier, metrics={"auroc": BinaryAUROC()}), x[:, :2], two)
    assert found["val/auroc"] == pytest.approx(float(binary_auroc(x[:, :2].softmax(1)[:, 1], two)))


def test_a_loss_is_the_mean_over_the_samples_and_perplexity_stays_that_of_the_cross_entropy() -> None:
    x, y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
    smooth = nn.CrossEntropyLoss(label_smoothing=0.2)
    task = made(LanguageModel, loss=smooth)
    found = values(task, x, y)
    assert float(task.loss((x, y))) == pytest.approx(float(smooth(x, y)))
    assert found["val/loss"] == pytest.approx(float(smooth(x, y)))
    assert found["val/perplexity"] == pytest.approx(float(F.cross_entropy(x, y).exp()))
    assert "val/entropy" not in found
    target = torch.randn(10, 1, generator=torch.Generator().manual_seed(1))
    found = values(made(Regressor, loss=nn.L1Loss(), metrics={"mse": MeanSquaredError()}), x[:, :1], target)
    assert found["val/loss"] == pytest.approx(found["val/mae"])
    assert found["val/mse"] == pytest.approx(float(F.mse_loss(x[:, :1], target)))


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1])),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1]), ignore_index=2, label_smoothing=0.1),
        nn.CrossEntropyLoss(),
        nn.MultiMarginLoss(weight=torch.tensor([1.0, 5.0, 0.1])),
    ],
)
def test_a_loss_of_torch_is_that_of_the_whole_split(loss: nn.Module) -> None:
    x, y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) // 4
    found = values(made(Classifier, loss=loss), x, y)
    assert found["val/loss"] == pytest.approx(float(loss(x, y)))
    assert loss.reduction == "mean"


def test_a_loss_that_is_a_sum_is_refused() -> None:
    for loss in (nn.CrossEntropyLoss(reduction="sum"), partial(F.cross_entropy, reduction="sum")):
        with pytest.raises(ConfigError, match=r"loss.reduction=sum: a sum grows with the batch"):
            made(Classifier, loss=loss)
    (line,) = problems("loss=cross_entropy", "loss.reduction=sum")
    assert line.startswith("loss.reduction=sum: a sum grows with the batch")


class Own(Classifier):
    def update_metrics(self, predictions: Tensor, targets: Tensor) -> None:
        pass


def test_what_gives_no_number_is_named() -> None:
    x, y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
    with pytest.raises(ConfigError, match=r"metrics.each: gives \[3\] values, and a metric is one number"):
        values(made(Classifier, metrics={"each": MulticlassAccuracy(3, average=None)}), x, y)
    with pytest.raises(ConfigError, match=r"loss: gives \[4\] values for a batch"):
        values(made(Classifier, loss=nn.CrossEntropyLoss(reduction="none")), x, y)
    with pytest.raises(ConfigError, match=r"metrics.f1: Own.count does not hand it the batches"):
        values(made(Own, metrics={"f1": MulticlassAccuracy(3)}), x, y)
    with pytest.raises(ConfigError, match=r"metrics.acc: the task logs this name itself"):
        made(Classifier, metrics={"acc": MulticlassAccuracy(3)})
    boot = BootStrapper(MulticlassAccuracy(3), num_bootstraps=2)
    assert {"val/boot/mean", "val/boot/std"} <= values(made(Classifier, metrics={"boot": boot}), x, y).keys()


def test_a_rank_without_samples_has_metrics_if_another_has(monkeypatch: pytest.MonkeyPatch) -> None:
    task = made(Classifier, metrics={"acc1": MulticlassAccuracy(3)})
    monkeypatch.setattr(type(task), "trainer", SimpleNamespace(strategy=SimpleNamespace(reduce=add_one)))
    assert task._metric_values() == {"acc1": 0}  # no update here, one on the other rank


def add_one(values: Tensor, reduce_op: str) -> Tensor:
    return values + 1


def problems(*words: str) -> list[str]:
    try:
        composed = compose("digits_mlp", words)
        complete(composed.node, overrides=composed.overrides)
        return list(map(str, check(resolve(composed.node))))
    except ConfigError as error:
        return str(error).splitlines()


F1 = "metrics.f1._target_=torchmetrics.F1Score"


def test_the_check_knows_loss_and_metrics(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    assert problems("metrics=classes", "monitor.metric=val/f1", "loss=cross_entropy") == []
    assert (
        problems(F1, "metrics.f1.task=multiclass", "metrics.f1.average=macro", "monitor.metric=val/f1") == []
    )
    assert problems("loss=cross_entropy", "loss.weight=[1,1,1,1,1,1,1,1,1,2]") == []
    assert problems("loss._target_=torch.nn.functional.cross_entropy", "loss._partial_=true") == []
    (line,) = problems("metrics=classes", "monitor.metric=val/f2")
    assert line.startswith("monitor.metric=val/f2: never logged; did you mean val/f1?")
    (line,) = problems("loss=cross_entropy", "loss.label_smoothing=2")
    assert line.startswith("loss.label_smoothing=2: must be from 0 to 1")
    (line,) = problems("metrics.acc._target_=torchmetrics.classification.MulticlassAccuracy")
    assert line == "metrics.acc: the task logs this name itself; give it another"
    (line,) = problems(
        "metrics.x._target_=torch.nn.Linear", "metrics.x.in_features=1", "metrics.x.out_features=1"
    )
    assert line == "metrics.x._target_: Linear is not a metric of torchmetrics"
    (project / "own.py").write_text(
        "from pytorch_lightning import LightningModule\n"
        "class Task(LightningModule):\n    def __init__(self, model): pass\n"
        "class Needs(LightningModule):\n    def __init__(self, loss, metrics=('a',)): pass\n"
    )
    (line,) = problems("task._target_=own.Task", "metrics=classes")
    assert line == "metrics: own.Task takes no metrics, or has its own; leave it out"
    (line,) = problems("task._target_=own.Needs")
    assert line == "loss: is none, and own.Needs needs one; choose one: loss=cross_entropy"
    assert problems("task._target_=own.Needs", "loss=cross_entropy") == []


def test_numbers_of_classes_and_weights_are_filled_in() -> None:
    composed = compose(
        "digits_mlp", [F1, "metrics.f1.task=multiclass", "loss=cross_entropy", "loss.weight=[1.0,2.0]"]
    )
    complete(composed.node)
    parts = make_loss_and_metrics(resolve(composed.node))
    assert parts["metrics"]["f1"].num_classes == 10
    assert parts["loss"].weight.tolist() == [1, 2]
    assert make_loss_and_metrics(resolve(compose("digits_mlp", []).node)) == {}


def test_two_ranks_and_an_evaluation_give_the_same_metrics(regente: Run, project: Path) -> None:
    words = ["metrics=classes", "loss=cross_entropy", "monitor.metric=val/f1", "trainer.max_epochs=1"]
    ended = regente(
        "train", "digits_mlp", *words, "trainer.devices=2", "trainer.strategy=ddp", "tracking=none"
    )
    assert ended.code == 0, ended.out + ended.err
    (job,) = jobs(project)
    trained = json.loads((job / "result.json").read_text())["metrics"]
    assert set(trained) == {
        f"{split}/{name}"
        for split in ("val", "test")
        for name in ("loss", "acc", "precision", "recall", "f1")
    }
    assert 0.2 < trained["test/f1"] < 1
    assert regente("evaluate", "latest").code == 0
    (file,) = job.rglob("evaluation.json")
    evaluated = json.loads(file.read_text())["metrics"]
    assert {name: evaluated[name] for name in trained} == pytest.approx(trained, rel=1e-6)
