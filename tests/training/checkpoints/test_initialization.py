"""Weights that another program has saved: they are found under its names, and no code of the file runs."""

import functools
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from safetensors.torch import save_file
from torch import Tensor, nn

from regente.errors import CheckpointError
from regente.jobs.checkpoint_files import load
from regente.training.checkpoints.initialization import initialize_from


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.criterion = nn.Linear(2, 2), nn.CrossEntropyLoss()


class Settings(dict[str, Any]):
    """As programs keep their hyperparameters."""


class Names(list[str]):
    pass


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *words: Any) -> None:
        self.call = function, words

    def __reduce__(self) -> Any:
        return self.call


def named(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}weight": torch.full((2, 2), 3.0), f"{prefix}bias": torch.zeros(2)}


OBJECTS = {
    "settings": Settings(a=Settings(b=1)),
    "names": Names(["x"]),
    "counts": defaultdict(int, {"x": 1}),
    "optimizer": functools.partial(torch.optim.Adam, lr=1),
    "net": nn.Sequential(nn.Linear(2, 2)),
    "path": Path("x"),
    "numpy": [np.float64(0.5), np.arange(3)],
    "evil": Runs(open, "canary", "w"),
}
FILES: dict[str, Any] = {
    "of Lightning, with objects": {"state_dict": named("net."), "hyper_parameters": OBJECTS},
    "of another class": {"state_dict": {**named("backbone."), "loss.weight": torch.ones(3)}},
    "of a loop of one's own": {"model_state_dict": named(""), "optimizer": {"lr": 1}},
    "of DistributedDataParallel": named("module."),
    "of torch.compile": {"state_dict": named("net._orig_mod.")},
}


@pytest.mark.parametrize("name", FILES)
def test_weights_are_found_under_the_names_of_the_program_that_saved_them(name: str, project: Path) -> None:
    torch.save(FILES[name], project / "x.ckpt")
    initialize_from(task := Net(), project / "x.ckpt")
    assert torch.equal(task.net.weight, torch.full((2, 2), 3.0))
    assert not (project / "canary").exists()


def test_safetensors_are_read_and_other_weights_and_code_are_refused(project: Path) -> None:
    save_file(named(""), project / "x.safetensors")
    initialize_from(task := Net(), project / "x.safetensors")
    assert torch.equal(task.net.weight, torch.full((2, 2), 3.0))
    torch.save({"state_dict": {"net.weight": torch.ones(3, 3)}}, project / "x.ckpt")
    with pytest.raises(CheckpointError, match="the weights of another model than this Net"):
        initialize_from(Net(), project / "x.ckpt")
    torch.save({"state_dict": named("net."), "x": Runs(os.system, "touch canary")}, project / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"holds code \(posix.system\)"):
        initialize_from(Net(), project / "x.ckpt")
    torch.save(FILES["of Lightning, with objects"], project / "x.ckpt")
    with pytest.raises(CheckpointError, match="holds code"):  # a checkpoint of a run holds none
        load(project / "x.ckpt")
    assert not (project / "canary").exists()
