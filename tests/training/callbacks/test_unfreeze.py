"""Fine-tuning from some epoch on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from regente.models.transfer import Transfer
from regente.training.callbacks.unfreeze import Unfreeze
from regente.training.learning_rates import add_group
from tests.conftest import Ended
from tests.training.test_fit import jobs

Run = Callable[..., Ended]
TUNE = ["train", "model=transfer", "model.backbone=squeezenet1_1", "model.weights=null", "tracking=none"]
TUNE += ["trainer=cpu", "trainer.max_epochs=2", "callbacks=unfreeze", "callbacks.unfreeze.epoch=1"]


def test_stages_are_those_that_the_network_is_made_of() -> None:
    sizes = {"resnet18": 6, "vgg11": 8, "vit_b_32": 16, "mobilenet_v3_small": 13, "squeezenet1_1": 9}
    for name, number in sizes.items():
        model = Transfer(name, [3, 64, 64], 3, weights=None)
        stages = model.stages()
        assert len(stages) == number, name
        assert sum(map(len, stages)) == len(list(model.build_backbone().parameters()))


@pytest.mark.parametrize("kind", ["cosine", "onecycle", "plateau"])
def test_a_group_that_joins_keeps_its_share_of_the_rate(kind: str) -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([a], lr=1.0)
    schedule: Any = {
        "cosine": lambda: CosineAnnealingLR(optimizer, 10),
        "onecycle": lambda: OneCycleLR(optimizer, 1.0, total_steps=11),
        "plateau": lambda: ReduceLROnPlateau(optimizer, patience=2),
    }[kind]()
    for step in range(10):
        if step == 4:
            add_group(optimizer, [schedule], [b], 0.1)
        (a * 1 + b * 1).sum().backward()
        optimizer.step()
        schedule.step(*([1.0] if kind == "plateau" else []))
    first, joined = (group["lr"] for group in optimizer.param_groups)
    assert joined == pytest.approx(first * 0.1)
    assert first < 1.0


def test_the_last_stages_are_trained_from_their_epoch_on_and_the_others_stay(
    regente: Run, project: Path
) -> None:
    ended = regente(*TUNE, "callbacks.unfreeze.stages=2", "callbacks.unfreeze.decay=0.5")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    first = Transfer("squeezenet1_1", [1, 28, 28], 10, weights=None)
    content = torch.load(job / "checkpoints/last.ckpt", weights_only=True)
    same = {
        key: torch.equal(content["state_dict"][f"model.backbone.{key}"], value)
        for key, value in first.build_backbone().state_dict().items()
    }
    moved = {".".join(key.split(".")[:2]) for key, equal in same.items() if not equal}
    assert moved == {"features.11", "features.12"}
    rates = [group["lr"] for group in content["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([1e-3, 1e-4, 5e-5])
    result = json.loads((job / "result.json").read_text())
    assert result["epochs"] == 2


def test_the_best_weights_are_tested_with_the_backbone_that_they_had(regente: Run, project: Path) -> None:
    # at this rate fine-tuning ruins the network: the best checkpoint is from before
    loss = ["monitor.metric=val/loss", "monitor.mode=min"]
    ended = regente(*TUNE, *loss, "callbacks.unfreeze.stages=null", "callbacks.unfreeze.factor=100")
    assert ended.code == 0, ended.err
    frozen = regente(*TUNE[:6], *loss, "trainer.max_epochs=1")
    assert frozen.code == 0, frozen.err
    tuned, plain = sorted(jobs(project), key=lambda job: job.stat().st_ctime)
    a, b = (json.loads((job / "result.json").read_text()) for job in (tuned, plain))
    assert a["best_epoch"] == 0
    assert a["metrics"]["val/loss"] == b["metrics"]["val/loss"]
    assert a["metrics"]["test/loss"] == pytest.approx(b["metrics"]["test/loss"], rel=1e-5)


def test_a_model_without_a_frozen_backbone_is_refused(regente: Run) -> None:
    ended = regente("train", "callbacks=unfreeze", "tracking=none")
    assert ended.code == 2
    assert ended.lines == [
        "callbacks.unfreeze: CNN has no frozen backbone; model=transfer would be right, with model.frozen=true"
    ]


def test_its_state_holds_whether_it_is_done() -> None:
    callback, twin = Unfreeze(3, 2), Unfreeze(3, 2)
    callback.done = True
    assert callback.state_key == twin.state_key != Unfreeze(4, 2).state_key
    twin.load_state_dict(callback.state_dict())
    assert twin.done


DIE = """
import os, signal
from pytorch_lightning import Callback
class Die(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if os.environ.get("DIE_AT") == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGKILL)
class DieBetween(Callback):  # which leaves the steps of the head grouped
    def on_validation_start(self, trainer, module):
        if os.environ.get("DIE_AT") == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_before_at_and_after_it_ends_with_the_same_weights(
    regente: Run, project: Path
) -> None:
    (project / "own.py").write_text(DIE)
    words = [*TUNE, "data.batch_size=256", "callbacks.unfreeze.stages=2", "scheduler=cosine"]
    words += ["+callbacks.die._target_=own.Die", "callbacks.resume.every_minutes=0"]
    assert regente(*words).code == 0
    (undisturbed,) = jobs(project)
    assert regente(*words, env={"DIE_AT": "3"}).code == -9  # five steps an epoch
    (job,) = [each for each in jobs(project) if each != undisturbed]
    for step in ("5", "7"):
        assert regente("resume", str(job), env={"DIE_AT": step}).code == -9
    ended = regente("resume", str(job))
    assert ended.code == 0, ended.err
    ours, theirs = (torch.load(j / "checkpoints/last.ckpt", weights_only=True) for j in (job, undisturbed))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(value, theirs["state_dict"][key]) for key, value in ours["state_dict"].items())
    assert str(ours["optimizer_states"]) == str(theirs["optimizer_states"])


@pytest.mark.slow
def test_grouped_steps_stay_counted_after_the_backbone_is_unfrozen(regente: Run, project: Path) -> None:
    (project / "own.py").write_text(DIE)
    words = [*TUNE, "trainer.max_epochs=3", "data.batch_size=256", "callbacks.unfreeze.stages=2"]
    words += [
        "model.dropout=0.2",
        "+callbacks.die._target_=own.DieBetween",
        "callbacks.resume.every_minutes=0",
    ]
    assert regente(*words).code == 0
    (undisturbed,) = jobs(project)
    assert (
        regente(*words, env={"DIE_AT": "10"}).code == -9
    )  # at the end of the first epoch that is fine-tuned
    (job,) = [each for each in jobs(project) if each != undisturbed]
    ended = regente("resume", str(job))
    assert ended.code == 0, ended.err
    ours, theirs = (torch.load(j / "checkpoints/last.ckpt", weights_only=True) for j in (job, undisturbed))
    assert ours["global_step"] == theirs["global_step"] == 15
    assert all(torch.equal(value, theirs["state_dict"][key]) for key, value in ours["state_dict"].items())


HASH = """
from pathlib import Path
from pytorch_lightning import Callback
from regente.training.callbacks.trace import weights_hash
class Hash(Callback):
    def on_train_end(self, trainer, module):
        Path(f"hash-{trainer.global_rank}").write_text(str(weights_hash(module)))
"""


def test_ranks_that_unfreeze_keep_the_same_weights(regente: Run, project: Path) -> None:
    (project / "own.py").write_text(HASH)
    words = ["data.batch_size=256", "callbacks.unfreeze.stages=2", "+callbacks.hash._target_=own.Hash"]
    ended = regente(*TUNE, *words, "trainer.devices=2", "trainer.strategy=ddp")
    assert ended.code == 0, ended.err
    first, second = ((project / f"hash-{rank}").read_text() for rank in (0, 1))
    assert first == second
