"""Runs of a task and data of the user's own, whose config names what a stranger's may not, through each command."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from regente.config.compose import compose
from regente.errors import DataError
from regente.inference import predict_split as on_own_data
from regente.inference.predict import rows_of
from regente.jobs import runs
from regente.jobs.job import freeze
from regente.training.assemble import Parts
from tests.conftest import Ended
from tests.training.test_fit import jobs

Run = Callable[..., Ended]
OWN = """
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Data(L.LightningDataModule):
    def __init__(self, transform, stamp: str):
        super().__init__()

    def setup(self, stage=None):
        x = torch.randn(48, 8, generator=torch.Generator().manual_seed(7))
        self.all = TensorDataset(x, (x.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.all, 16)

    val_dataloader = test_dataloader = train_dataloader


class Plain:
    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha


def make_net(width: int = 16):
    return nn.Linear(8, width)


class Head(nn.Linear):
    @classmethod
    def from_pretrained(cls, name: str):
        return cls(int(name), 2)


class Lit(L.LightningModule):
    def __init__(self, net, head, metric, plain):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net, self.head, self.metric = net, head, metric

    def forward(self, x):
        return self.head(self.net(x).relu())

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        self.metric(self.training_step(batch, batch_idx))
        self.log("val_loss", self.metric)

    def predict_step(self, batch, batch_idx):
        p = self(batch[0]).softmax(1)
        return {"class": p.argmax(1), "p": p, "loss": p.mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Writer(L.Callback):
    def __init__(self, folder: str):
        self.folder = folder
"""
EXPERIMENT = """# A test's
defaults:
  - /train
  - override /data: own
  - override /task: own
  - _self_
monitor: {metric: val_loss, mode: min}
trainer: {max_epochs: 1, accelerator: cpu}
tracking: {uri: null}
callbacks:
  writer: {_target_: own.Writer, folder: /somewhere/else}
"""
TASK = """_target_: own.Lit
net: {_target_: own.make_net, width: 4}
head: {_target_: own.Head.from_pretrained, name: "4"}
metric: {_target_: torchmetrics.MeanMetric}
plain: {_target_: own.Plain, alpha: 2.0}
"""
DATA = "_target_: own.Data\ntransform: {_target_: torchvision.transforms.ToTensor}\nstamp: ${now:%f}\n"


def test_a_run_is_used_as_it_started_whatever_its_config_names(regente: Run, project: Path) -> None:
    files = {"own.py": OWN, "experiments/own.yaml": EXPERIMENT, "conf/task/own.yaml": TASK}
    for name, text in {**files, "conf/data/own.yaml": DATA}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    assert regente("train", "own").code == 0
    (job,) = jobs(project)
    assert "stamp: '" in (job / "config.yaml").read_text()
    ended = regente("resume", "latest", "trainer.max_epochs=2")
    assert ended.code == 0 and "resumes from step 3" in ended.out, ended.err
    ended = regente("evaluate", "latest")
    assert ended.code == 0 and "equal to the bit" in ended.out, ended.err

    ended = regente("predict", "latest", "--out", "p.csv")
    assert (ended.code, ended.err) == (0, ""), ended.err
    rows = list(csv.DictReader((project / "p.csv").read_text().splitlines()))
    assert [row["input"] for row in rows] == [str(number) for number in range(48)]
    assert set(rows[0]) == {"input", "class", "p_0", "p_1"}
    assert all(row["class"] == str(int(float(row["p_1"]) > 0.5)) for row in rows)
    ended = regente("predict", "latest", "photo.jpg")
    assert (ended.code, len(ended.lines)) == (2, 1) and "predicts on its own data" in ended.err

    ended = regente("export", "latest", "--format", "torch")
    assert (ended.code, ended.err) == (0, ""), ended.err
    program = torch.export.load(job / "export/model.pt2").module()
    x = np.load(job / "example.npy")
    assert program(torch.from_numpy(x).repeat(3, 1)).shape == (6, 2)
    (job / "example.npy").unlink()
    ended = regente("export", "latest", "--format", "torch")
    assert (ended.code, len(ended.lines)) == (2, 1) and "example_input_array" in ended.err
    assert regente("export", "latest", "--format", "safetensors").code == 0
    state = torch.load(json.loads((job / "result.json").read_text())["best_checkpoint"])["state_dict"]
    kept = load_file(job / "export/model.safetensors")
    assert {"net.weight", "head.weight"} <= set(kept)
    assert all(torch.equal(each, state[name]) for name, each in kept.items())

    (job / "config.yaml").write_text((job / "config.yaml").read_text() + "# changed\n")
    ended = regente("evaluate", "latest")
    assert ended.code == 2 and "leads out of the job directory" in ended.err
    assert "was changed since" in ended.lines[-1]


@pytest.mark.parametrize(
    ("outputs", "rows"),
    [
        (torch.tensor([1, 2]), [{"input": "5", "prediction": 1}, {"input": "6", "prediction": 2}]),
        (torch.tensor([[1], [2]]), [{"input": "5", "prediction": 1}, {"input": "6", "prediction": 2}]),
        (
            (torch.zeros(1, 2), ["a"]),
            [{"input": "5", "prediction_0_0": 0.0, "prediction_0_1": 0.0, "prediction_1": "a"}],
        ),
        ({"mask": torch.zeros(1, 1, 2), "loss": torch.tensor(1)}, [{"input": "5", "mask": [[0.0, 0.0]]}]),
        (torch.tensor(0.5), [{"input": "5", "prediction": 0.5}]),
        ({"score": np.float64(0.5), "n": 2}, [{"input": "5", "score": 0.5, "n": 2}]),
        (None, []),
    ],
)
def test_what_a_predict_step_returns_becomes_rows(outputs: object, rows: list[object]) -> None:
    assert rows_of(outputs, 5) == rows


class Sums(LightningModule):
    """A number for each batch, or nothing."""

    nothing = False

    def predict_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> object:
        return None if self.nothing else batch.sum()


class Loaders(LightningDataModule):
    def __init__(self, loaders: Callable[[], object]) -> None:
        super().__init__()
        self.predict_dataloader = loaders  # type: ignore[method-assign,assignment]


def one(*numbers: int) -> DataLoader[torch.Tensor]:
    return DataLoader(torch.tensor(numbers), batch_size=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "loaders",
    [
        lambda: one(1, 2, 3),
        lambda: [one(1, 2), one(3)],
        lambda: {"a": one(1, 2), "b": one(3)},
        lambda: CombinedLoader([one(1, 2), one(3)], "sequential"),
    ],
    ids=["one", "list", "mapping", "combined"],
)
@pytest.mark.filterwarnings("ignore")
def test_each_form_of_loaders_is_predicted_on_and_no_predictions_are_an_error(
    loaders: Callable[[], object], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = compose("digits_mlp", [])
    job = freeze(composed.yaml(), project, experiment="e", overrides=[], command=[], choices={})
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    parts = Parts(Loaders(loaders), Sums(), Trainer(**quiet), [])  # type: ignore[arg-type]
    monkeypatch.setattr(on_own_data, "loaded_parts", lambda *_: (parts, None))
    found = on_own_data.predict_split(runs.Run(job, {}))
    assert found.rows == [{"input": "0", "prediction": 3}, {"input": "1", "prediction": 3}]
    parts.task.nothing = True  # type: ignore[assignment]
    with pytest.raises(DataError, match="no predictions"):
        on_own_data.predict_split(runs.Run(job, {}))
