"""Parameter groups of an optimizer by names, by dimensions and by depth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regente.config.check import check
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.errors import ConfigError
from regente.tasks.classifier import Classifier
from regente.training.assemble import make_model, make_optimizer, make_task
from regente.training.complete import complete
from regente.training.parameter_groups import ParameterGroups
from tests.conftest import Ended
from tests.training.test_fit import jobs

Run = Callable[..., Ended]
WORDS = ["optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1"]
PLAIN = "optimizer.groups.plain={dims: 1, weight_decay: 0.0}"
LOW = "optimizer.groups.low={names: 'layers.1.*', lr_factor: 0.1}"


def config_of(*words: str) -> dict[str, Any]:
    composed = compose("digits_mlp", [*WORDS, *words])
    complete(composed.node)
    return resolve(composed.node)


def problems(*words: str) -> list[str]:
    return list(map(str, check(config_of(*words))))


def rows(*words: str) -> dict[str, tuple[float, float, int]]:
    """Rate, weight decay and number of parameters of each group."""
    config = config_of(*words)
    task: Any = make_task(config, make_model(config["model"], None))  # type: ignore[arg-type]
    optimizer = task.make_optimizer([each for each in task.parameters() if each.requires_grad])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(task.parameters()))
    return {
        group["name"]: (group["lr"], group["weight_decay"], len(group["params"]))
        for group in optimizer.param_groups
    }


def test_parameters_are_in_the_first_group_that_takes_them() -> None:
    assert isinstance(make_optimizer(config_of(PLAIN)), ParameterGroups)
    assert not isinstance(make_optimizer(config_of()), ParameterGroups)
    found = rows(PLAIN, LOW)
    assert list(found) == ["others", "plain", "low"]  # the rate of the first is that of the optimizer
    assert (found["others"][:2], found["plain"][:2]) == ((0.01, 0.1), (0.01, 0.0))
    assert found["low"] == (pytest.approx(0.001), 0.1, 1)
    every = sum(row[2] for row in found.values())
    assert rows("optimizer.groups.low={names: [weight, bias], lr: 0.5}") == {"low": (0.5, 0.1, every)}
    with pytest.raises(
        ConfigError,
        match=r"low.names=backbone.\*: matches none of the parameters, such as model",
    ):
        rows("optimizer.groups.low.names=backbone.*")


def test_a_group_of_the_users_may_be_named_as_the_one_of_all_others() -> None:
    found = rows("optimizer.groups.others={names: 'layers.1.*', lr: 0.5}")
    assert list(found) == ["others_", "others"]
    assert (found["others_"][0], found["others"][0], found["others"][2]) == (0.01, 0.5, 2)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(2))
        self.stem = nn.Linear(2, 2)
        self.encoder = nn.ModuleDict(
            {"layers": nn.Sequential(*(nn.Sequential(nn.Linear(2, 2)) for _ in range(2)))}
        )
        self.head = nn.Linear(2, 2)


def test_the_rate_decays_from_layer_to_layer_towards_the_inputs() -> None:
    factory = ParameterGroups(
        lambda groups: torch.optim.SGD(groups, lr=1.0), {"bias": {"names": "*.bias"}}, 0.5
    )
    task = Classifier(Deep(), factory, None, "val/loss")
    factory.task = task
    rates = {group["name"]: group["lr"] for group in factory(task.parameters()).param_groups}
    assert rates == {
        **{f"others/{number}": 0.5 ** (3 - number) for number in (3, 2, 1, 0)},
        **{f"bias/{number}": 0.5 ** (3 - number) for number in (3, 2, 1, 0)},
    }


def test_the_check_knows_groups() -> None:
    assert problems(PLAIN, LOW, "optimizer.layer_decay=0.8", "scheduler=onecycle") == []
    for words, text in (
        (["optimizer.groups.a={weight_decay: 0}"], "optimizer.groups.a: says no parameters"),
        (
            ["optimizer.groups.a={dims: 1, weight_deca: 0}"],
            "optimizer.groups.a.weight_deca: no such setting;",
        ),
        (
            ["optimizer.groups.a={dims: 1, weight_decay: -1}"],
            "optimizer.groups.a.weight_decay=-1: must be at",
        ),
        (
            ["optimizer.groups.a={dims: 1, lr: 1, lr_factor: 2}"],
            "optimizer.groups.a.lr: goes without lr_factor",
        ),
        (["optimizer.groups=[1]"], "optimizer.groups=[1]: needs groups by name"),
        (["optimizer.layer_decay=2"], "optimizer.layer_decay=2: must be above 0 and at most 1"),
        (
            ["optimizer.groups.a={dims: 1, lr: 1}", "trainer.find_lr=true"],
            "optimizer.groups.a.lr: stays as it is",
        ),
    ):
        (line,) = problems(*words)
        assert line.startswith(text), line


def test_a_run_with_groups_and_a_schedule_resumes_with_other_settings(regente: Run, project: Path) -> None:
    words = ["digits_mlp", *WORDS, PLAIN, LOW, "scheduler=onecycle", "tracking=none", "trainer.max_epochs=2"]
    rates = "+callbacks.rates._target_=own.Rates"
    (project / "own.py").write_text(
        "import json\nfrom pytorch_lightning import Callback\n"
        "class Rates(Callback):\n    def on_train_start(self, trainer, module):\n"
        "        groups = trainer.optimizers[0].param_groups\n"
        "        open('groups.json', 'w').write(json.dumps([[g['name'], g['max_lr'], g['weight_decay']] for g in groups]))\n"
    )
    ended = regente("train", *words, rates)
    assert ended.code == 0, ended.err
    found = json.loads((project / "groups.json").read_text())
    assert found == [["others", 0.01, 0.1], ["plain", 0.01, 0.0], ["low", pytest.approx(0.001), 0.1]]
    refused = regente("resume", "latest", "optimizer.groups.low.names=layers.3.*", "trainer.max_steps=500")
    assert refused.code == 2
    assert "the state of the optimizer has its groups" in refused.err
    assert jobs(project)
