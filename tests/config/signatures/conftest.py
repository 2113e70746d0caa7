"""Packages that a test writes down, and targets of the libraries that a config is made of."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from regente.config.signatures import Signature, read

REAL = [
    "pytorch_lightning.Trainer", "pytorch_lightning.loggers.MLFlowLogger",
    *(f"pytorch_lightning.callbacks.{n}" for n in ("ModelCheckpoint", "EarlyStopping", "LearningRateMonitor")),
    "torch.optim.Adam", "torch.optim.AdamW", "torch.optim.adamw.AdamW", "torch.optim.SGD",
    *(f"torch.optim.lr_scheduler.{n}" for n in ("CosineAnnealingLR", "OneCycleLR", "ReduceLROnPlateau", "StepLR")),
    "torch.nn.Linear", "torch.nn.Conv2d", "torch.nn.Dropout", "torch.nn.functional.relu",
    "torch.utils.data.DataLoader", "torchvision.datasets.MNIST", "torchvision.datasets.FashionMNIST",
    "torchvision.models.resnet18", "torchvision.models.alexnet", "torchvision.transforms.Normalize",
    "sklearn.svm.SVC", "sklearn.datasets.load_digits", "torchmetrics.classification.MulticlassAccuracy",
]  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes the files of a package of a fresh name, which it returns."""

    def write(**files: str) -> str:
        name = f"written_{os.urandom(4).hex()}"
        (tmp_path / name).mkdir()
        for file, text in {"__init__": "", **files}.items():
            (tmp_path / name / f"{file}.py").write_text(textwrap.dedent(text).replace("PKG", name))
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return write


@pytest.fixture
def code(package: Callable[..., str]) -> Callable[[str], Signature]:
    """The signature of the `it` that a module defines."""
    return lambda text: read(f"{package(there=text)}.there.it")
