"""torchmetrics is whole for whoever asks, and small for Lightning alone. In a process of its own, where nothing is imported."""

import subprocess
import sys

PROGRAM = """
import sys
import regente
import pytorch_lightning
import torchmetrics

there = [name for name in ("scipy.signal", "torchmetrics.functional.text", "torchmetrics.detection") if name in sys.modules]
assert not there, there
from torchmetrics import Metric, MetricCollection
assert Metric is torchmetrics.metric.Metric and pytorch_lightning.LightningModule
assert type(torchmetrics).__name__ == "LazyPackage" and not hasattr(torchmetrics, "__wrapped__")

import numpy
import torch
from torchmetrics.functional.classification import multiclass_accuracy  # without the rest
from torchmetrics.functional import classification
assert type(torchmetrics.functional).__name__ == "LazyPackage" and numpy.Inf == numpy.inf
assert classification.multiclass_accuracy is multiclass_accuracy

assert torchmetrics.__version__ and torchmetrics.MeanMetric  # whole from here on
assert type(torchmetrics).__name__ == "module" and "scipy.signal" in sys.modules
assert not [name for name in torchmetrics.__all__ if not hasattr(torchmetrics, name)]
assert not [name for name in torchmetrics.functional.__all__ if not hasattr(torchmetrics.functional, name)]
assert torchmetrics.Metric is Metric and torchmetrics.functional.classification is classification
assert torchmetrics.Accuracy(task="binary")(torch.ones(2), torch.ones(2)) == 1
assert "F1Score" in dir(torchmetrics)
try:
    torchmetrics.Acuracy
except AttributeError as error:
    assert "Acuracy" in str(error)
"""


def test_torchmetrics_is_whole_for_whoever_asks_and_small_for_lightning_alone() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
