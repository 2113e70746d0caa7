"""A run that was killed goes on as if it had not been: real kills of real processes, compared number by number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regente.tracking.journal import read
from tests.conftest import Ended
from tests.training.test_fit import jobs

Run = Callable[..., Ended]

FRAGILE = """
import copy, os, signal
from collections import defaultdict
from torch import nn
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from torchmetrics import MaxMetric, MeanMetric, MetricCollection, MinMaxMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision, MulticlassRecall
from torch.utils.data import DataLoader, TensorDataset
import torch

def die(place):
    if os.environ.get("DIE_AT") == place:
        os.kill(os.getpid(), signal.SIGKILL)

seen = {True: 0, False: 0}  # of the process: what a model counts is resumed

class Fragile(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, num_classes))
    def forward(self, x):
        seen[self.training] += 1
        die(f"{'train' if self.training else 'val'} {seen[self.training]}")
        return self.layers(x)

class Noisy(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn_like(x), y

class Own(LightningDataModule):
    def __init__(self, num_classes: int = 10, workers: int = 0) -> None:
        super().__init__()
        self.num_classes, self.workers, self.batch_size = num_classes, workers, 32
        self.x = torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        self.y = (self.x.sum((1, 2, 3)) * 10).long() % 10
    def train_dataloader(self):
        context = "fork" if self.workers else None  # not the fork server of the tests, which imports torch anew
        return DataLoader(Noisy(self.x, self.y), 32, shuffle=True, num_workers=self.workers, multiprocessing_context=context)
    def val_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), 64)
    test_dataloader = val_dataloader

class Manual(LightningModule):
    def __init__(self, model, optimizer, scheduler, monitor) -> None:
        super().__init__()
        self.model, self.make_optimizer, self.automatic_optimization = model, optimizer, False
    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())
    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}
    def validation_step(self, batch, batch_idx):
        logits = self.model(batch[0])
        self.log("val/acc", (logits.argmax(1) == batch[1]).float().mean())

class Averaged(LightningModule):
    def __init__(self, model, optimizer, scheduler) -> None:
        super().__init__()
        self.model, self.make_optimizer, self.make_scheduler = model, optimizer, scheduler
        self.train_acc, self.best = MulticlassAccuracy(10), MaxMetric()
        self.both = MetricCollection({"p": MulticlassPrecision(10), "r": MulticlassRecall(10)})
        self.range, self.outputs, self.by_class = MinMaxMetric(MeanMetric()), [], defaultdict(list)
        self.calls = 0
    def on_train_start(self):
        self.best.reset()
    def training_step(self, batch, batch_idx):
        logits = self.model(batch[0])
        loss = nn.functional.cross_entropy(logits, batch[1])
        self.calls += 1
        if batch_idx == 0:
            self.log("first", loss, on_epoch=True, on_step=False)
        self.train_acc(logits, batch[1])
        self.range(loss.detach())
        self.log("train_acc", self.train_acc, on_step=True, on_epoch=True)
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log_dict(self.both(logits, batch[1]), on_step=False, on_epoch=True)
        self.outputs.append(loss.detach())
        self.by_class[int(batch[1][0])].append(loss.item())
        return loss
    def on_train_epoch_end(self):
        self.log("mean", torch.stack(self.outputs).mean())
        self.log("calls", float(self.calls))
        self.log("classes", sum(sum(losses) for losses in self.by_class.values()) + len(self.by_class))
        self.log_dict(self.range.compute())
        self.log_dict({f"all_{name}": value for name, value in self.both.compute().items()})
        self.both.reset()
        self.outputs.clear()
        self.by_class.clear()
    def validation_step(self, batch, batch_idx):
        logits = self.model(batch[0])
        self.log("val/acc", (logits.argmax(1) == batch[1]).float().mean())
    def on_validation_epoch_end(self):
        self.best(self.trainer.callback_metrics.get("train_acc_step", torch.tensor(0.0)))
        self.log("best", self.best.compute())
    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        schedule = {"scheduler": self.make_scheduler(optimizer), "monitor": "train_acc_epoch"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

class Smooth(Callback):
    def on_fit_start(self, trainer, module):
        self.shadow, self.net = {k: v.clone() for k, v in module.state_dict().items()}, copy.deepcopy(module.model)
        self.acc = MulticlassAccuracy(10)
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        with torch.no_grad():
            for key, value in module.state_dict().items():
                self.shadow[key].lerp_(value, 0.1)
            for mean, value in zip(self.net.parameters(), module.model.parameters()):
                mean.lerp_(value, 0.1)
        self.acc.update(batch[1], batch[1] if index % 2 else 9 - batch[1])
    def on_train_epoch_end(self, trainer, module):
        module.log("shadow", sum(each.abs().sum() for each in self.shadow.values()))
        module.log("net", sum(each.abs().sum() for each in self.net.parameters()))
        module.log("own_acc", self.acc.compute())

saves = 0
def dying_fsync(number, fsync=os.fsync):
    global saves
    saves += 1
    die(f"save {saves}")
    fsync(number)
if os.environ.get("DIE_AT", "").startswith("save"):
    os.fsync = dying_fsync
"""


CHAIN = """# warms up, then decays, by steps of the optimizer
_target_: torch.optim.lr_scheduler.SequentialLR
_partial_: true
interval: step
schedulers:
  - {_target_: torch.optim.lr_scheduler.LinearLR, _partial_: true, start_factor: 0.1, total_iters: 2}
  - {_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true, T_max: 7}
milestones: [2]
"""


@pytest.fixture
def fragile(project: Path) -> Path:
    """An experiment whose model dies when told to."""
    (project / "experiments").mkdir()
    (project / "conf/model").mkdir(parents=True)
    (project / "fragile.py").write_text(FRAGILE)
    (project / "conf/model/fragile.yaml").write_text(
        "# dies when told to\n_target_: fragile.Fragile\nnum_classes: ${data.num_classes}\n"
    )
    (project / "conf/task").mkdir()
    (project / "conf/task/manual.yaml").write_text("# takes its own steps\n_target_: fragile.Manual\n")
    (project / "conf/task/averaged.yaml").write_text("# averages\n_target_: fragile.Averaged\n")
    (project / "conf/scheduler").mkdir()
    (project / "conf/scheduler/chain.yaml").write_text(CHAIN)
    (project / "conf/data/own.yaml").parent.mkdir(exist_ok=True)
    (project / "conf/data/own.yaml").write_text("# a DataLoader\n_target_: fragile.Own\nnum_classes: 10\n")
    (project / "experiments/mine.yaml").write_text(
        "# mine\ndefaults:\n  - /train\n  - override /model: fragile\n  - override /tracking: none\n  - _self_\n"
        "data:\n  batch_size: 128\ntrainer:\n  max_epochs: 3\n  log_every_n_steps: 4\n  steps_per_call: 1\n"
        "callbacks:\n  resume:\n    every_minutes: 0\n"
    )
    (project / "experiments/loader.yaml").write_text(
        "# mine\ndefaults:\n  - /train\n  - override /data: own\n  - override /model: fragile\n"
        "  - override /tracking: none\n  - _self_\ntrainer:\n  max_epochs: 3\n  log_every_n_steps: 4\n"
        "callbacks:\n  resume:\n    every_minutes: 0\n"
    )
    return project


def metrics(job: Path) -> dict[tuple[str, int], list[float]]:
    """Every value that a job recorded, by metric and step; what is measured by the clock, or after the training, left out."""
    found: dict[tuple[str, int], list[float]] = {}
    for line in read(job / "journal.jsonl", 0)[0]:
        for key, value in line["values"].items() if line["kind"] == "metrics" else ():
            if key != "train/samples_per_second" and not key.startswith("test/"):
                found.setdefault((key, line["step"]), []).append(value)
    return found


def weights(job: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(job / "checkpoints/last.ckpt", weights_only=True)
    return content


def assert_same(job: Path, undisturbed: Path) -> None:
    assert metrics(job) == metrics(undisturbed)
    a, b = weights(job), weights(undisturbed)
    assert a["global_step"] == b["global_step"]
    for key, value in b["state_dict"].items():
        assert torch.equal(a["state_dict"][key], value), key
    assert str(a["optimizer_states"]) == str(b["optimizer_states"])
    assert str(a["lr_schedulers"]) == str(b["lr_schedulers"])
    found = [json.loads((each / "result.json").read_text()) for each in (job, undisturbed)]
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["best_epoch"] == found[1]["best_epoch"]
    assert sorted(path.name for path in (job / "checkpoints").iterdir()) == sorted(
        path.name for path in (undisturbed / "checkpoints").iterdir()
    )


AVERAGED = ["mine", "task=averaged", "scheduler=plateau", "+callbacks.smooth._target_=fragile.Smooth"]
# digits: nine batches an epoch, the last of them short
CASES: dict[str, tuple[list[str], list[str]]] = {
    "in an epoch": (["mine"], ["train 5", "train 14"]),
    "several steps a call": (["mine", "trainer.steps_per_call=3"], ["train 8", "train 9"]),
    "in a validation": (["mine"], ["val 2", "val 5"]),
    "before anything was saved": (["mine"], ["train 1"]),
    "during a save": (["mine"], ["save 2", "save 5", "save 13"]),
    "accumulating, in half precision": (
        [
            "mine",
            "trainer.accumulate_grad_batches=3",
            "trainer=cpu",
            "trainer.precision=bf16-mixed",
            "scheduler=chain",
        ],
        ["train 6", "train 12", "val 2"],
    ),
    "validations in the epoch, plateau": (
        ["mine", "+trainer.val_check_interval=3", "scheduler=plateau", "scheduler.patience=0"],
        ["train 5", "val 4", "train 7"],
    ),
    "a schedule for each step": (["mine", "scheduler=onecycle"], ["train 6", "val 2", "train 3"]),
    "a schedule for each epoch": (["mine", "scheduler=cosine"], ["train 6", "val 2", "train 3"]),
    "a plateau of validations every other epoch": (
        ["mine", "trainer.check_val_every_n_epoch=2", "scheduler=plateau", "trainer.max_epochs=4"],
        ["train 6", "val 2", "train 10"],
    ),
    "without validations": (["mine", "trainer.limit_val_batches=0"], ["train 9", "train 4"]),
    "optimizer steps of the task's own": (["mine", "task=manual"], ["train 5", "train 14"]),
    "augmented": (["mine", "augment=flip_crop"], ["train 5", "train 6"]),
    "what is averaged over an epoch": (
        [*AVERAGED, "scheduler.patience=0", "scheduler.mode=min", "+trainer.val_check_interval=3"],
        ["train 6", "val 2", "train 3"],
    ),
    "a DataLoader": (["loader"], ["train 3", "train 6"]),
    "a DataLoader with workers": (["loader", "data.workers=2"], ["train 4"]),
}


VARIANTS = ("a schedule for each epoch", "a plateau of validations every other epoch", "without validations",
            "in a validation", "augmented", "a DataLoader")  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.variant) if case in VARIANTS else case for case in CASES]
)
def test_a_run_that_was_killed_goes_on_to_the_same_numbers(case: str, regente: Run, fragile: Path) -> None:
    words, deaths = CASES[case]
    ended = regente("train", *words)
    assert ended.code == 0, ended.err
    (undisturbed,) = jobs(fragile)
    assert regente("train", *words, env={"DIE_AT": deaths[0]}).code == -9
    (job,) = set(jobs(fragile)) - {undisturbed}
    for death in deaths[1:]:
        assert regente("resume", str(job), env={"DIE_AT": death}).code == -9, death
    ended = regente("resume", str(job))
    assert ended.code == 0, ended.err
    assert_same(job, undisturbed)
    assert not list(job.rglob("*.draft"))
