"""Tasks and data modules as people have them: written for Lightning alone, brought with YAML files and nothing else."""

import json
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ended
from tests.training.checkpoints.test_resume import assert_same
from tests.training.test_fit import jobs, query, until

Run = Callable[..., Ended]
LIT = """
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import Accuracy


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 16, samples: int = 160):
        super().__init__()
        self.save_hyperparameters(logger=False)

    def setup(self, stage=None):
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(self.hparams.samples, 8, generator=generator)
        y = (x.sum(1) > 0).long()
        self.parts = random_split(TensorDataset(x, y), [0.6, 0.2, 0.2], generator=generator)

    def train_dataloader(self):
        return DataLoader(self.parts[0], self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.parts[1], self.hparams.batch_size)

    def test_dataloader(self):
        return DataLoader(self.parts[2], self.hparams.batch_size)


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


class Lit(L.LightningModule):
    def __init__(self, net: nn.Module, optimizer, scheduler=None, compile: bool = False):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
        self.criterion = nn.CrossEntropyLoss()
        self.val_acc, self.best = Accuracy(task="multiclass", num_classes=2), MaxMetric()

    def forward(self, x):
        return self.net(x)

    def _loss(self, batch):
        x, y = batch
        logits = self(x)
        return self.criterion(logits, y), logits.argmax(1), y

    def training_step(self, batch, batch_idx):
        loss, _, _ = self._loss(batch)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, preds, y = self._loss(batch)
        self.val_acc(preds, y)
        self.log("val_loss", loss)
        self.log("val_acc", self.val_acc, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self):
        self.best(self.val_acc.compute())
        self.log("best_so_far", self.best.compute(), sync_dist=True)

    def test_step(self, batch, batch_idx):
        loss, preds, y = self._loss(batch)
        self.log("acc", (preds == y).float().mean())
        return {"preds": preds, "targets": y}

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.parameters())
        if self.hparams.scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.hparams.scheduler(optimizer=optimizer)}}


class Alone(L.LightningModule):
    def __init__(self, lr: float = 0.05, dim: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(dim, 2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.layer(x), y)
        self.log("train_loss", loss)
        return {"loss": loss, "losses": [1, 2]}

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.layer(x), y))

    def forward(self, x):
        return self.layer(x)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
"""
TASK = """_target_: lit.Lit
net:
  _target_: lit.Net
  width: 16
optimizer:
  _target_: torch.optim.Adam
  _partial_: true
  lr: 0.01
scheduler:
  _target_: torch.optim.lr_scheduler.StepLR
  _partial_: true
  step_size: 2
compile: false
"""
EXPERIMENT = """# A test's
defaults:
  - /train
  - override /data: lit
  - override /task: {task}
  - _self_
monitor: {{metric: {metric}, mode: {mode}}}
trainer: {{max_epochs: 4, accelerator: cpu}}
"""


@pytest.fixture
def lit(project: Path) -> Path:
    (project / "lit.py").write_text(LIT)
    for place in ("experiments", "conf/data", "conf/task"):
        (project / place).mkdir(parents=True)
    (project / "conf/data/lit.yaml").write_text("_target_: lit.Data\nbatch_size: 16\n")
    (project / "conf/task/lit.yaml").write_text(TASK)
    (project / "conf/task/alone.yaml").write_text("_target_: lit.Alone\nlr: 0.05\n")
    (project / "experiments/nested.yaml").write_text(
        EXPERIMENT.format(task="lit", metric="val_acc", mode="max")
    )
    (project / "experiments/alone.yaml").write_text(
        EXPERIMENT.format(task="alone", metric="val_loss", mode="min")
    )
    return project


def result_of(job: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job / "result.json").read_text())
    return found


@pytest.mark.usefixtures("store")
def test_a_task_with_its_own_net_and_optimizer_trains_is_evaluated_and_is_recorded(
    regente: Run, lit: Path
) -> None:
    assert regente("check", "nested").code == 0
    ended = regente("train", "nested", "tracking.log_model=none")
    assert ended.code == 0, ended.out + ended.err
    assert "hyperparameters net, optimizer, scheduler are objects" in ended.out
    (job,) = jobs(lit)
    metrics = result_of(job)["metrics"]
    assert set(metrics) == {"val_loss", "val_acc", "best_so_far", "test/acc"}
    assert result_of(job)["best_checkpoint"]
    keys = {key for (key,) in query(lit, "select distinct key from metrics")}
    assert {"train/loss", "val_loss", "val_acc", "test/acc", "best/val_acc"} <= keys, keys
    params = dict(query(lit, "select key, value from params"))
    assert params["task.optimizer.lr"] == "0.01"
    assert not {
        key for key in params if key.partition(".")[0] in ("model", "optimizer") and params[key] != "null"
    }
    evaluated = regente("evaluate", "latest")
    assert evaluated.code == 0, evaluated.err
    assert "equal to the bit" in evaluated.out, evaluated.out


def test_a_task_that_is_killed_goes_on_to_the_same_numbers(
    regente: Run, start: Callable[..., ForkServerProcess], lit: Path
) -> None:
    slow = (
        (lit / "lit.py")
        .read_text()
        .replace(
            "        x, y = batch\n        loss",
            "        import time; time.sleep(0.05)\n        x, y = batch\n        loss",
        )
    )
    (lit / "lit.py").write_text(slow)
    words = ["train", "alone", "callbacks.resume.every_minutes=0", "tracking=none", "loggers=csv"]
    assert regente(*words).code == 0
    (whole,) = jobs(lit)
    process = start(*words)
    until(lambda: len(jobs(lit)) == 2)
    (job,) = set(jobs(lit)) - {whole}
    until(lambda: len(list((job / "resume").glob("step-*.ckpt"))) > 1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    ended = regente("resume", str(job))
    assert ended.code == 0, ended.out + ended.err
    assert_same(job, whole)
    assert result_of(job)["metrics"] == result_of(whole)["metrics"]
    assert [file.parent.name for file in whole.glob("csv/*/metrics.csv")] == ["version_0"]
    tables = [file.read_text() for file in job.glob("csv/*/metrics.csv")]
    assert sum(table.count("\n") - 1 for table in tables) >= 4
    assert "val_loss" in tables[-1]


def test_a_task_is_swept_loaded_and_refuses_what_it_does_not_take(regente: Run, lit: Path) -> None:
    ended = regente("train", "alone", "-m", "task.lr=0.01,0.1", "tracking=none")
    assert ended.code == 0, ended.out + ended.err
    assert "2 of 2 jobs done" in ended.out
    refused = regente("train", "alone", "optimizer.lr=0.1")
    assert (refused.code, refused.lines) == (
        2,
        ["optimizer.lr=0.1: lit.Alone takes no optimizer, or has its own; leave it out"],
    )
    refused = regente("train", "digits_mlp", "model=none")
    assert refused.code == 2
    assert refused.lines[0].startswith("model: is none, and regente.tasks.classifier.Classifier needs one")
    code = "import regente, torch; print(tuple(regente.load_model('latest')(torch.zeros(3, 8)).shape))"
    (lit / "program.py").write_text(code)
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "program.py"], cwd=lit, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "(3, 2)", done.stderr


def test_a_metric_to_monitor_that_is_never_logged_is_named(regente: Run, lit: Path) -> None:
    ended = regente("train", "alone", "monitor.metric=val/acc", "tracking=none")
    assert ended.code == 2, ended.err
    assert len(ended.lines) == 1
    assert "val/acc" in ended.err and "val_loss" in ended.err


GAN = """
import lightning as L
import torch
from torch import nn


class Gan(L.LightningModule):
    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator, self.critic = nn.Linear(4, 8), nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        made = self.generator(torch.randn(len(batch[0]), 4))
        loss = -self.critic(made).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        other = self.critic(made.detach()).mean() - self.critic(batch[0]).mean()
        second.zero_grad()
        self.manual_backward(other)
        second.step()
        self.log_dict({"g_loss": loss, "d_loss": other, "train/loss": loss + other}, on_epoch=True)

    def configure_optimizers(self):
        each = (self.generator, self.critic)
        return [torch.optim.SGD(net.parameters(), lr=self.hparams.lr) for net in each]
"""


def test_a_task_of_two_optimizers_without_a_validation_is_kept_and_says_so(regente: Run, lit: Path) -> None:
    (lit / "gan.py").write_text(GAN)
    (lit / "conf/task/gan.yaml").write_text("_target_: gan.Gan\n")
    (lit / "experiments/gan.yaml").write_text(EXPERIMENT.format(task="gan", metric="val/acc", mode="max"))
    callbacks = "lightning.pytorch.callbacks"
    with (lit / "experiments/gan.yaml").open("a") as file:
        file.write(f"callbacks:\n  bar: {{_target_: {callbacks}.RichProgressBar}}\n")
        file.write(f"  rates: {{_target_: {callbacks}.LearningRateMonitor}}\n")
        file.write(f"  other: {{_target_: {callbacks}.ModelCheckpoint, dirpath: /elsewhere}}\n")
    words = ["tracking=none", "callbacks.checkpoint.dirpath=kept"]
    ended = regente("train", "gan", *words)
    assert ended.code == 0, ended.out + ended.err
    assert "monitor.metric=val/acc: never logged, so the last weights are kept; logged: " in ended.out
    assert "callbacks.bar is left out" in ended.out
    (job,) = jobs(lit)
    assert (job / "kept/last_weights.ckpt").is_file()
    assert "callbacks.other.dirpath=/elsewhere is left out" in ended.out
    assert list((job / "checkpoints").glob("epoch=*.ckpt"))
    epoch = [
        line for line in (job / "journal.jsonl").read_text().splitlines() if '"train/loss_epoch"' in line
    ]
    assert len(epoch) == 4
    assert not [
        line
        for line in (job / "journal.jsonl").read_text().splitlines()
        if '"train/loss":' in line and "train/lr" in line
    ]
    verified = regente("rerun", "latest", "--verify")
    assert verified.code == 0, verified.err
    refused = regente("evaluate", "latest")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "neither validation_step nor test_step" in refused.err
    refused = regente("train", "gan", *words, "trainer.accumulate_grad_batches=2")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert refused.err.startswith("Automatic gradient accumulation is not supported for manual optimization")
