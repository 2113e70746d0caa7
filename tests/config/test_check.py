"""Which configs `check` refuses and, as important, which it accepts."""

import copy
import importlib
from typing import Any

import pytest
import torch

from regente.config.check import check
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.config.limits import BY_CLASS, limit_of
from regente.config.signatures import NOT_LITERAL, read
from regente.training.complete import complete
from tests.config.signatures.conftest import REAL


def config(*overrides: str, experiment: str = "digits_mlp") -> dict[str, Any]:
    node = compose(experiment, list(overrides)).node
    complete(node)
    return resolve(node)


OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes: int, name: str = "net", wait=None, folder=None, layer=None, head=None): ...
class Layer(nn.Module):
    def __init__(self, width: int, activation): ...
"""
VALID: dict[str, dict[str, Any]] = {
    "a nested partial without all its arguments": {"layer": {"_target_": "own.Layer", "_partial_": True, "width": 3}},
    "positional arguments": {"layer": {"_target_": "own.Layer", "_args_": [3, {"_target_": "torch.nn.ReLU"}]}},
    "more positional arguments": {"layer": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.ReLU"}] * 3}},
    "a node that the class instantiates": {"_recursive_": False, "layer": {"_target_": "own.Layer", "width": 3}},
    "an int for a text": {"name": 2024},
    "a timedelta": {"wait": {"_target_": "datetime.timedelta", "minutes": 5}},
    "a partial of functools": {"head": {"_target_": "functools.partial", "_args_": [{"_target_": "torch.nn.ReLU"}]}},
    "a path": {"folder": {"_target_": "pathlib.Path", "_args_": ["a/b"]}},
}  # fmt: skip


@pytest.fixture
def own(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    (project / "own.py").write_text(OWN)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", VALID)
def test_a_valid_model_passes(name: str) -> None:
    whole = config()
    whole["model"] = {"_target_": "own.Net", "num_classes": 10, **VALID[name]}
    assert check(whole) == []


@pytest.mark.usefixtures("own")
def test_a_nested_part_is_checked_with_its_full_key() -> None:
    whole = config()
    whole["model"] = {
        "_target_": "own.Net",
        "num_classes": 10,
        "layer": {"_target_": "own.Layer", "widht": 3},
    }
    wheres = [problem.where for problem in check(whole)]
    assert wheres == ["model.layer.widht", "model.layer.width", "model.layer.activation"]


@pytest.mark.parametrize(
    "setting",
    ["max_steps=1e5", "max_epochs=1e1", "min_epochs=0", "limit_val_batches=1.0", "limit_val_batches=0", "devices=auto",
     "max_epochs=-1", "val_check_interval=0.25", "gradient_clip_val=0", "precision=16", "profiler=simple"],
)  # fmt: skip
def test_a_valid_setting_of_the_trainer_passes(setting: str) -> None:
    assert check(config(f"trainer.{setting}")) == []


@pytest.mark.parametrize("setting", ["max_steps=1.5", "min_epochs=-1", "log_every_n_steps=0"])
def test_an_invalid_setting_of_the_trainer_is_named(setting: str) -> None:
    assert [problem.where for problem in check(config(f"trainer.{setting}"))] == [f"trainer.{setting}"]


RANGES = [
    ("optimizer", "torch.optim.AdamW", {"betas": [0.9, 1.5]}, "betas=[0.9, 1.5]"),
    ("optimizer", "torch.optim.AdamW", {"eps": -1.0}, "eps=-1.0"),
    ("optimizer", "torch.optim.SGD", {"momentum": -0.1}, "momentum=-0.1"),
    ("optimizer", "torch.optim.SGD", {"lr": 0.1, "nesterov": True}, "nesterov=True"),
    ("optimizer", "torch.optim.Adadelta", {"rho": 2}, "rho=2"),
    ("optimizer", "torch.optim.NAdam", {"momentum_decay": -1}, "momentum_decay=-1"),
    ("scheduler", "torch.optim.lr_scheduler.OneCycleLR", {"max_lr": 0.1, "pct_start": 1.5}, "pct_start=1.5"),
    ("scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau", {"mode": "mni"}, "mode=mni"),
    ("scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau", {"factor": 1.0}, "factor=1.0"),
    ("model", "torch.nn.Dropout", {"p": 1.5}, "p=1.5"),
]


@pytest.mark.parametrize(("part", "target", "arguments", "where"), RANGES)
def test_a_value_out_of_its_range_is_refused_by_check_and_by_the_class(
    part: str, target: str, arguments: dict[str, Any], where: str
) -> None:
    whole = config()
    whole[part] = {"_target_": target, **arguments}
    assert [problem.where for problem in check(whole)] == [f"{part}.{where}"]
    module, _, name = target.rpartition(".")
    weights = [torch.nn.Parameter(torch.zeros(2))]
    first = {"optimizer": (weights,), "scheduler": (torch.optim.SGD(weights, lr=0.1, momentum=0.9),)}.get(
        part, ()
    )
    steps = {"total_steps": 9} if name == "OneCycleLR" else {}
    with pytest.raises(ValueError):  # noqa: PT011 - each class has words of its own
        getattr(importlib.import_module(module), name)(*first, **arguments, **steps)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_mode_that_a_callback_does_not_have_is_refused(mode: str) -> None:
    whole = config()
    whole["callbacks"]["stop"] = {
        "_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/loss", "mode": mode,
    }  # fmt: skip
    assert check(whole) == []
    whole["callbacks"]["stop"]["mode"] = "mim"
    assert [problem.where for problem in check(whole)] == ["callbacks.stop.mode=mim"]


def test_no_limit_refuses_the_default_of_a_library() -> None:
    for target in [*REAL, "optuna.pruners.MedianPruner", "optuna.samplers.NSGAIISampler"]:
        for parameter in read(target).parameters.values():
            limit = limit_of(parameter.owner, parameter.name)
            assert limit is None or parameter.default is NOT_LITERAL or limit.allows(parameter.default), (
                target
            )


def test_each_class_of_the_table_takes_the_arguments_of_its_row() -> None:
    for place, limits in BY_CLASS.items():
        for name in limits if place.rpartition(".")[2][:1].isupper() else ():
            assert name in read(place).parameters, f"{place}.{name}"


def test_a_class_of_the_users_may_take_what_its_base_refuses(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    (project / "own_optimizer.py").write_text(
        "from torch.optim import Adam\n"
        "class Climb(Adam):\n"
        "    def __init__(self, params, lr=-0.1): super().__init__(params, lr=-lr)\n"
        "class Same(Adam): ...\n"
    )
    whole = config()
    whole["optimizer"] = {"_target_": "own_optimizer.Climb", "lr": -0.2}
    assert check(whole) == []
    whole["optimizer"] = {"_target_": "own_optimizer.Same", "lr": -0.2}
    assert [problem.where for problem in check(whole)] == ["optimizer.lr=-0.2"]


def test_every_problem_between_parts_is_named() -> None:
    whole = copy.deepcopy(config("trainer.find_lr=true", "trainer.find_batch_size=true", "trainer.devices=2"))
    whole["monitor"]["metric"] = "val/los"
    wheres = [problem.where for problem in check(whole)]
    assert wheres == ["trainer.find_lr", "trainer.find_batch_size", "monitor.metric=val/los"]
