"""Which configs `check` refuses and, as important, which it accepts."""

import copy
import functools
import importlib
import inspect
import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regente.config.check import check
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.config.limits import BY_CLASS, RELATIONS, STRATEGIES, limit_of
from regente.config.signatures import NOT_LITERAL, read
from regente.training.complete import complete
from tests.config.signatures.conftest import REAL


def config(*overrides: str, experiment: str = "digits_mlp") -> dict[str, Any]:
    return copy.deepcopy(_composed(experiment, overrides))


@functools.cache
def _composed(experiment: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    node = compose(experiment, list(overrides)).node
    complete(node)
    return resolve(node)


OWN = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes: int, name: str = "net", wait=None, folder=None, layer=None, head=None,
                 weights: "torch.Tensor | None" = None): ...
class Layer(nn.Module):
    def __init__(self, width: int, activation): ...
"""
# Classes of the user's whose arguments have names that Regente has ranges and relations for
NAMESAKES = """
from pytorch_lightning import Callback, LightningDataModule
from regente.models.lstm import LSTM
from torch import nn
from torch.optim import SGD, Optimizer
class Steps(Optimizer):
    def __init__(self, params, nesterov="no", momentum=None, dampening=None, betas=None): ...
class Kept(SGD):
    def __init__(self, params, nesterov="no", **more): super().__init__(params, **more)
class Tied(nn.Module):
    def __init__(self, num_classes, tie_weights=None, embedding=None, hidden=None): ...
class Words(LSTM):
    def __init__(self, tie_weights="never", **more): super().__init__(**more)
class Data(LightningDataModule):
    def __init__(self, num_classes, test_share=None, val_share=None, window=None, max_tokens=None): ...
class Watch(Callback):
    def __init__(self, monitor, mode=None): ...
"""
VALID: dict[str, dict[str, Any]] = {
    "a nested partial without all its arguments": {"layer": {"_target_": "own.Layer", "_partial_": True, "width": 3}},
    "positional arguments": {"layer": {"_target_": "own.Layer", "_args_": [3, {"_target_": "torch.nn.ReLU"}]}},
    "more positional arguments": {"layer": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.ReLU"}] * 3}},
    "a node that the class instantiates": {"_recursive_": False, "layer": {"_target_": "own.Layer", "width": 3}},
    "an int for a text": {"name": 2024},
    "a list for a tensor that the class makes of it": {"weights": [0.1, 0.9]},
    "a timedelta": {"wait": {"_target_": "datetime.timedelta", "minutes": 5}},
    "a date": {"wait": {"_target_": "datetime.date.fromisoformat", "_args_": ["2026-01-31"]}},
    "parts in a list and in a mapping": {"layer": [{"_target_": "torch.nn.ReLU"}], "head": {"a": {"_target_": "torch.nn.Tanh"}}},
    "a partial of functools": {"head": {"_target_": "functools.partial", "_args_": [{"_target_": "torch.nn.ReLU"}]}},
    "a path": {"folder": {"_target_": "pathlib.Path", "_args_": ["a/b"]}},
}  # fmt: skip


@pytest.fixture
def own(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    (project / "own.py").write_text(OWN)
    (project / "namesakes.py").write_text(NAMESAKES)


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


PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "layer": lambda node: {"num_classes": 10, "layer": node},
    "layer.deep": lambda node: {"num_classes": 10, "layer": {"deep": node}},
    "layer[0]": lambda node: {"num_classes": 10, "layer": [node]},
    "_args_[1]": lambda node: {"_args_": [10, node]},
}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "refused: os.system is not a component"),
        ("datetime.timedeltaa", "timedeltaa not found; did you mean timedelta?"),
        ("torch.nn.ReLUU", "ReLUU not found; did you mean ReLU?"),
    ],
)
def test_a_nested_part_that_is_none_is_refused_wherever_it_stands(
    where: str, target: str, message: str
) -> None:
    whole = config()
    whole["model"] = {"_target_": "own.Net", **PLACES[where]({"_target_": target})}
    (problem,) = check(whole)
    assert problem.where == f"model.{where}._target_"
    assert problem.what.endswith(message)


def test_a_file_is_told_to_be_renamed_only_where_python_finds_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_own_parts.py", "email.py"):
        (tmp_path / name).write_text("class Wide: ...")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/__init__.py").write_text("class Wide: ...")
    (tmp_path / "my_package/2d-parts.py").write_text("class Wide: ...")  # as importlib finds it
    told = []
    for target in ("my_own_parts.Wid", "my_package.Wid", "email.Wide", "my_package.2d-parts.Wid"):
        (problem,) = check(config() | {"model": {"_target_": target}})
        told.append(problem.what)
    assert told[0] == "my_own_parts.Wid: Wid not found; did you mean Wide?"
    assert told[1] == "my_package.Wid: Wid not found; did you mean Wide?"
    assert told[2].endswith("so email.py is not found: rename it")
    assert told[3] == "my_package.2d-parts.Wid: Wid not found; did you mean Wide?"


@pytest.mark.parametrize(
    "setting",
    ["max_steps=1e5", "max_epochs=1e1", "min_epochs=0", "limit_val_batches=1.0", "limit_val_batches=0", "devices=auto",
     "max_epochs=-1", "val_check_interval=0.25", "gradient_clip_val=0", "precision=16", "profiler=simple",
     "devices=[0,1]", "fast_dev_run=true", "plugins=null", "profiler=null", "strategy=ddp_spawn", "strategy=my_ddp"],
)  # fmt: skip
def test_a_valid_setting_of_the_trainer_passes(setting: str) -> None:
    assert check(config(f"trainer.{setting}")) == []


def test_a_whole_count_written_as_a_float_is_an_int_wherever_it_is_referred_to() -> None:
    whole = config("scheduler=cosine", "trainer.max_epochs=1e1")
    assert check(whole) == []
    for count in (whole["trainer"]["max_epochs"], whole["scheduler"]["T_max"]):
        assert type(count) is int and count == 10


@pytest.mark.parametrize(
    "setting",
    ["max_steps=1.5", "min_epochs=-1", "log_every_n_steps=0", "profiler=foo", "plugins=foo", "devices=[0, 0]",
     "fast_dev_run=-1", "strategy=dpp", "strategy=fsdpp"],
)  # fmt: skip
def test_an_invalid_setting_of_the_trainer_is_named(setting: str) -> None:
    assert [problem.where for problem in check(config(f"trainer.{setting}"))] == [f"trainer.{setting}"]


def test_the_strategies_that_are_known_are_those_of_lightning() -> None:
    from pytorch_lightning.strategies import StrategyRegistry

    assert {"auto", *StrategyRegistry.available_strategies()} == {*STRATEGIES}


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


NAMED_ALIKE = [
    ("optimizer", "Steps", ("nesterov", "momentum", "dampening", "betas")),
    ("optimizer", "Kept", ("nesterov",)),
    ("model", "Tied", ("tie_weights", "embedding", "hidden")),
    ("model", "Words", ("tie_weights",)),
    ("data", "Data", ("test_share", "val_share", "window", "max_tokens")),
    ("callbacks.watch", "Watch", ("monitor", "mode")),
]
BESIDES = {
    "Words": {"vocab_size": 10, "embedding": 8, "hidden": 16},
    "Kept": {"momentum": 0.0},
    "Watch": {"monitor": "val/loss"},
}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("value", ["val/loss", ["a", "b"], [2, 3], {"a": 1}, 2, True, None], ids=str)
@pytest.mark.parametrize(("part", "name", "arguments"), NAMED_ALIKE, ids=[row[1] for row in NAMED_ALIKE])
def test_arguments_of_the_users_own_classes_may_be_named_as_ours_and_be_anything(
    part: str, name: str, arguments: tuple[str, ...], value: Any
) -> None:
    needed = {"num_classes": 10} if part in ("model", "data") else {}
    for given in ([], *([each] for each in arguments), arguments):
        whole = config()
        node = (
            {"_target_": f"namesakes.{name}"} | needed | BESIDES.get(name, {}) | dict.fromkeys(given, value)
        )
        root, _, inner = part.partition(".")
        whole[root] = whole[root] | {inner: node} if inner else node
        assert check(whole) == []


@pytest.mark.parametrize("arguments", [{}, {"nesterov": True}, {"nesterov": True, "dampening": 0.1}], ids=str)
def test_a_key_that_is_wrong_by_itself_is_one_problem(arguments: dict[str, Any]) -> None:
    whole = config()
    whole["optimizer"] = {"_target_": "torch.optim.SGD", "momentum": -1, **arguments}
    assert [problem.where for problem in check(whole)] == ["optimizer.momentum=-1"]


@pytest.mark.parametrize("name", ["EarlyStopping", "ModelCheckpoint"])
def test_a_callback_watches_one_metric(name: str) -> None:
    whole = config()
    whole["callbacks"]["two"] = {
        "_target_": f"pytorch_lightning.callbacks.{name}", "monitor": ["val/loss", "val/acc"],
    }  # fmt: skip
    (problem,) = check(whole)
    assert problem.where == "callbacks.two.monitor=['val/loss', 'val/acc']"


TIED = ("model.embedding=64", "model.hidden=64", "model.tie_weights=true")
TEXTS = ("data.path=texts.csv", "data.num_classes=2")
SHAPE = "data.input_shape=[9]"
# for each row of the relations, in their order: an experiment, what breaks the row, what is blamed, what keeps it
RELATED = [
    ("digits_mlp", ("optimizer=sgd", "optimizer.momentum=0"), "optimizer.nesterov=True",
     ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")),
    ("text_lstm", (*TIED, "model.hidden=32"), "model.tie_weights=True", TIED),
    ("text_lstm", (*TIED, "model.num_classes=9"), "model.tie_weights=True", TIED),
    ("series_forecast", ("data.test_share=0.5", "data.val_share=0.5"), "data.test_share=0.5",
     ("data.test_share=0.5", "data.val_share=0.4")),
    ("text_lstm", ("data.num_classes=9", ), "data.num_classes=9", ("data.num_classes=9", "data.vocab_size=9")),
    ("text_lstm", (SHAPE,), SHAPE, (SHAPE, "data.window=9")),
    ("text_minilm", (*TEXTS, SHAPE), SHAPE, (*TEXTS, SHAPE, "data.max_tokens=9")),
]  # fmt: skip


@pytest.mark.parametrize("number", range(max(len(RELATIONS), len(RELATED))))
def test_arguments_that_do_not_fit_each_other_are_refused_and_fitting_ones_pass(number: int) -> None:
    relation, (experiment, broken, where, kept) = RELATIONS[number], RELATED[number]
    (problem,) = check(config(*broken, experiment=experiment))
    assert (problem.where, problem.what) == (where, relation.message)
    assert check(config(*kept, experiment=experiment)) == []


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


@pytest.mark.parametrize("place", [place for place, limits in BY_CLASS.items() if limits])
def test_each_limit_is_of_an_argument_that_the_imported_class_has(place: str) -> None:
    found: Any = pydoc.locate(place)
    members = [found] if inspect.isclass(found) else vars(found).values()
    classes = [each for each in members if inspect.isclass(each) and each.__module__.startswith(place)]
    arguments = {name for each in classes or [found] for name in inspect.signature(each).parameters}
    assert set(BY_CLASS[place]) <= arguments


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


@pytest.mark.usefixtures("own")
def test_own_parts_may_go_beyond_what_the_built_in_ones_agree_on() -> None:
    whole = config()
    whole["model"] = {"_target_": "own.Net", "num_classes": 11}  # with a class for the background
    assert check(whole) == []
    whole["model"]["num_classes"] = 3
    assert [problem.where for problem in check(whole)] == ["model.num_classes=3"]
    whole = config()
    whole["monitor"]["metric"] = "val/own"
    assert [problem.where for problem in check(whole)] == ["monitor.metric=val/own"]
    whole["callbacks"]["own"] = {"_target_": "namesakes.Watch", "monitor": "val/own"}
    assert check(whole) == []


def test_every_problem_between_parts_is_named() -> None:
    whole = copy.deepcopy(config("trainer.find_lr=true", "trainer.find_batch_size=true", "trainer.devices=2"))
    whole["monitor"]["metric"] = "val/los"
    wheres = [problem.where for problem in check(whole)]
    assert wheres == ["trainer.find_lr", "trainer.find_batch_size", "monitor.metric=val/los"]


def test_metrics_that_name_no_class_or_none_that_exists_leave_the_other_checks_alone() -> None:
    whole = config("+metrics.f1={top_k: 3}", "+metrics.own={_target_: nowhere.At}")
    assert check(whole, {"optimizer"}) == []


def test_shares_fit_a_row_of_whole_numbers_of_the_users_own_class(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "splits.py").write_text(
        "from typing import Tuple\nfrom pytorch_lightning import LightningDataModule\n"
        "class Data(LightningDataModule):\n    def __init__(self, split: Tuple[int, int, int]): ...\n"
    )
    monkeypatch.syspath_prepend(str(project))
    for split, problems in (([0.8, 0.1, 0.1], 0), ([50, 5, 5], 0), ([0.8, 0.2], 1), (["a", 1, 1], 1)):
        whole = config()
        whole["data"] = {"_target_": "splits.Data", "split": split}
        assert len(check(whole)) == problems, split
