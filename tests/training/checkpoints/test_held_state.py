"""What a task holds outside of its state dict, saved and given back."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from pytorch_lightning import LightningModule

from regente.training.checkpoints.held_state import HeldState


def held(task: LightningModule) -> HeldState:
    results = SimpleNamespace(epoch_loop=SimpleNamespace(_results={}))
    on = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(
        callbacks=[], optimizers=[], lr_scheduler_configs=[], fit_loop=results, strategy=on
    )
    return HeldState(trainer, task)


class Draws(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.of_torch = torch.Generator().manual_seed(0)
        self.of_numpy, self.of_python = np.random.default_rng(0), random.Random(0)

    def draw(self) -> list[float]:
        return [
            float(torch.rand(1, generator=self.of_torch)),
            self.of_numpy.random(),
            self.of_python.random(),
        ]


def test_generators_of_a_task_go_on() -> None:
    task, resumed = Draws(), Draws()
    task.draw()
    state = held(task).state()
    assert held(resumed).restore(state) == []
    assert resumed.draw() == task.draw()


class Odd(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.settings = OmegaConf.create({"path": "???"})
        self.ring: list[Any] = [1]
        self.ring.append(self.ring)
        self.later: list[Any] = []


def test_containers_that_cannot_be_read_end_no_training() -> None:
    task = Odd()
    seen = held(task)
    assert seen.state()["objects"] == []
    task.later.append(task.later)
    assert seen.state()["objects"] == ["Odd.later"]
