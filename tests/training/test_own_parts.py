"""Parts of the user's own that do less than Regente's, as Lightning lets them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from regente import load_model
from regente.errors import ConfigError
from regente.training.assemble import make
from tests.conftest import Ended
from tests.training.test_fit import jobs, query

Run = Callable[..., Ended]
OWN = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, IterableDataset

class Stream(IterableDataset):
    def __iter__(self):
        for number in range(64):
            yield {"x": torch.full((4,), number / 64), "y": torch.tensor(number % 2)}

class Data(LightningDataModule):
    def __init__(self, num_classes: int, input_shape: list[int]):
        super().__init__()
        self.features = ["x"]  # no stored features, as those of a frozen backbone
    def train_dataloader(self):
        return DataLoader(Stream(), batch_size=8)
    val_dataloader = train_dataloader

class Task(LightningModule):
    def __init__(self, model, optimizer, scheduler, monitor):
        super().__init__()
        self.net, self.make = torch.nn.Linear(4, 2), optimizer
    def _loss(self, batch):
        return torch.nn.functional.cross_entropy(self.net(batch["x"]), batch["y"])
    def training_step(self, batch, index):
        return None if index == 3 else self._loss(batch)
    def validation_step(self, batch, index):
        self.log("val/loss", self._loss(batch))
        self.log("val/recall@5", 0.5)
    def configure_optimizers(self):
        return self.make(self.parameters())
"""
EXPERIMENT = """# A test's
defaults:
  - /train
  - override /data: own
  - override /task: own
  - _self_
monitor: {metric: val/loss, mode: min}
trainer: {max_epochs: 2}
"""


def own_parts(project: Path, source: str, experiment: str) -> None:
    """A data module and a task of the project's own, `own.Data` and `own.Task`, and the experiment `own` with them."""
    (project / "own.py").write_text(source)
    for place in ("experiments", "conf/data", "conf/task"):
        (project / place).mkdir(parents=True)
    (project / "conf/data/own.yaml").write_text("_target_: own.Data\nnum_classes: 2\ninput_shape: [4]\n")
    (project / "conf/task/own.yaml").write_text("_target_: own.Task\n")
    (project / "experiments/own.yaml").write_text(experiment)


@pytest.mark.usefixtures("store")
def test_dicts_streams_skipped_steps_odd_names_and_no_test_are_taken(regente: Run, project: Path) -> None:
    own_parts(project, OWN, EXPERIMENT)
    ended = regente("train", "own", "model=mlp", "tracking.log_model=none")
    assert ended.code == 0, ended.out + ended.err
    (job,) = jobs(project)
    metrics = json.loads((job / "result.json").read_text())["metrics"]
    assert set(metrics) == {"val/loss", "val/recall@5"}
    assert query(project, "select status from runs") == [("FINISHED",)]
    rows = query(project, "select distinct key from metrics where key like '%recall%'")
    assert ("val/recall_5",) in rows
    refused = regente("train", "own", "model=mlp", "task=classifier", "scheduler=onecycle", "tracking=none")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert refused.lines[0].startswith("scheduler: OneCycleLR needs the number of steps")
    refused = regente("check", "own", "scheduler=cosine", "scheduler.interval=step", "model=mlp")
    assert refused.lines == ["scheduler.interval: own.Task says itself when its schedule steps; leave it out"]


DRAWS = """
import random
from pytorch_lightning import Callback

class Draws(Callback):
    def __init__(self):
        with open("drawn.txt", "a") as file:
            print(random.random(), file=file)
"""


def test_a_callback_that_draws_when_it_is_made_draws_by_the_seed(regente: Run, project: Path) -> None:
    (project / "draws.py").write_text(DRAWS)
    words = ["digits_mlp", "trainer=debug", "tracking=none", "+callbacks.draws._target_=draws.Draws"]
    for seed in (0, 0, 1):
        assert regente("train", *words, f"seed={seed}").code == 0
    first, again, other = (project / "drawn.txt").read_text().splitlines()
    assert first == again != other


REFUSING = """
from torch.optim import SGD
class Refusing(SGD):
    def __init__(self, params, lr=0.1, weight_decay=0.0):
        raise ValueError("no such thing")
"""


def test_an_optimizer_that_refuses_its_arguments_is_one_line(regente: Run, project: Path) -> None:
    (project / "own.py").write_text(REFUSING)
    ended = regente("train", "digits_mlp", "tracking=none", "optimizer._target_=own.Refusing")
    assert ended.code == 2
    assert ended.lines == ["optimizer: no such thing"]


def test_an_error_of_a_part_that_gets_finished_objects_is_that_of_the_part(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "refusing.py").write_text(REFUSING)
    monkeypatch.syspath_prepend(str(project))
    with pytest.raises(ConfigError, match=r"^loss: no such thing$"):
        make("loss", {"_target_": "refusing.Refusing"}, params=[])


COUNTED = """
from torch import nn
class Counted(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        with open("made.txt", "a") as file:
            print("made", file=file)
"""


def test_a_model_is_loaded_by_being_made_once(
    regente: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_parts(
        project,
        OWN.replace("self.net, self.make = torch.nn.Linear(4, 2)", "self.net, self.make = model"),
        EXPERIMENT,
    )
    (project / "counted.py").write_text(COUNTED)
    (project / "conf/model").mkdir()
    (project / "conf/model/counted.yaml").write_text("_target_: counted.Counted\n")
    ended = regente("train", "own", "model=counted", "tracking=none")
    assert ended.code == 0, ended.err
    assert (project / "made.txt").read_text().count("made") == 1
    monkeypatch.syspath_prepend(str(project))
    network = load_model("latest")
    assert (project / "made.txt").read_text().count("made") == 2
    assert {name for name, _ in network.named_parameters()} == {"net.weight", "net.bias"}


NESTED = """
from torch import Tensor, nn
from regente import Supervised
from regente.tasks.classifier import Classifier

class Nested(Classifier):
    def __init__(self, net: nn.Module, optimizer, scheduler=None, loss=None, metrics=None, width: int = 3):
        super().__init__(net, optimizer, scheduler, "val/f1", loss, metrics)
"""
NODES = """_target_: nested.Nested
net:
  _target_: torch.nn.Sequential
  _args_: [{_target_: torch.nn.Flatten}, {_target_: torch.nn.Linear, in_features: 784, out_features: 10}]
optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 0.01}
scheduler: {_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 1}
loss: {_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.1}
metrics:
  f1: {_target_: torchmetrics.classification.MulticlassF1Score, num_classes: 10}
"""


def test_a_supervised_task_may_hold_its_parts_itself(
    regente: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "nested.py").write_text(NESTED)
    (project / "conf/task").mkdir(parents=True)
    (project / "conf/task/nested.yaml").write_text(NODES)
    words = ["digits_mlp", "task=nested", "tracking=none", "monitor.metric=val/f1", "trainer.max_epochs=2"]
    ended = regente("train", *words)
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    metrics = json.loads((job / "result.json").read_text())["metrics"]
    assert set(metrics) == {f"{split}/{name}" for split in ("val", "test") for name in ("loss", "acc", "f1")}
    assert '"train/lr":0.001' in (job / "journal.jsonl").read_text()  # of the second epoch
    monkeypatch.syspath_prepend(str(project))
    assert tuple(load_model("latest")(torch.zeros(2, 1, 28, 28)).shape) == (2, 10)
    evaluated = regente("evaluate", "latest")
    assert "equal to the bit" in evaluated.out, evaluated.err
    refused = regente("train", *words, "metrics=classes")
    assert (refused.code, refused.lines) == (
        2,
        ["metrics: nested.Nested takes no metrics, or has its own; leave it out"],
    )
