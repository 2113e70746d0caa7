"""Seeds are added until the interval is as narrow as asked."""

from pathlib import Path
from typing import Any

import pytest

from regente.analysis.intervals import half_width
from regente.errors import ConfigError
from regente.sweeps.adaptive_seeds import LOOKS, AdaptiveSeeds, expand_until
from regente.sweeps.plan import make_plan
from regente.sweeps.protocols import TrialResult, TrialSource

CONFIG = {"seed": 4, "monitor": {"metric": "val/acc", "mode": "max"}}


def source(until: str, *overrides: str, **settings: Any) -> AdaptiveSeeds:
    return AdaptiveSeeds(Path(), overrides, CONFIG, params={"seed": until}, **settings)


def run(found: AdaptiveSeeds, values: dict[str, list[float]]) -> list[str]:
    """Let each trial end with the next value of its configuration; the words of all trials."""
    left, asked = {key: list(each) for key, each in values.items()}, []
    while batch := list(iter(found.ask, None)):
        for trial in batch:
            assert trial is not None
            asked.append(" ".join(trial.overrides))
            value = left[trial.overrides[0]].pop(0)
            found.tell(trial, TrialResult(0, {"val/acc": value}) if value >= 0 else TrialResult(1))
    return asked


def test_each_configuration_gets_seeds_until_its_interval_is_narrow() -> None:
    narrow, wide = [0.9, 0.9001, 0.9002], [0.5, 0.9] * 4
    found = source("until(±1%)", "lr=1,2", "seed=1", most=8)
    assert isinstance(found, TrialSource)
    asked = run(found, {"lr=1": narrow, "lr=2": wide})
    assert asked[:6] == [f"lr={lr} seed={seed}" for seed in (4, 5, 6) for lr in (1, 2)]
    assert asked[6:] == [f"lr=2 seed={seed}" for seed in range(7, 12)]
    first, second = found.end_reason.splitlines()
    level = 1 - 0.05 / 3  # three looks, after 3, 5 and 8 seeds
    assert (
        first
        == f"lr=1: val/acc 0.9001 +- {half_width(narrow, level):.4f} (95 % interval over 3 looks, 3 seeds)"
    )
    assert second.endswith(
        "(95 % interval over 3 looks, 8 seeds); wider than asked, at the limit of hydra.sweeper.most"
    )


def test_failed_jobs_have_no_value_and_equal_values_no_interval() -> None:
    failing = source("until(0.1)", "lr=1")
    assert len(run(failing, {"lr=1": [-1] * 30})) == 3  # not thirty failures
    assert "no interval; 0 seeds finished" in failing.end_reason
    some = source("until(0.2)", "lr=1")
    assert (
        len(run(some, {"lr=1": [-1, 0.50, 0.51, 0.52, 0.50]})) == 5
    )  # two values are too few at the first look
    equal = source("until(0.2)", "lr=1", most=5)
    assert len(run(equal, {"lr=1": [0.5] * 5})) == 5
    assert "without spread" in equal.end_reason


def test_the_width_is_in_the_unit_of_the_metric_or_a_share_of_its_mean() -> None:
    assert [(found.width, found.relative) for found in map(source, ("until(0.005)", "until( +-0.5% )", "until(1e-3)"))] == [
        (0.005, False), (0.005, True), (0.001, False),
    ]  # fmt: skip
    for wrong in ("until()", "until(0)", "until(x)", "3", "until(-1)"):
        with pytest.raises(ConfigError, match=r"seed=.*: until\(HALF\) takes half the width of the interval"):
            source(wrong)
    with pytest.raises(ConfigError, match="most=2: must be at least 3 seeds"):
        source("until(1)", most=2)
    assert LOOKS[0] == 3


def test_the_command_line_chooses_it_and_the_sweep_is_that_of_the_same_grid(project: Path) -> None:
    assert expand_until(["a=1", "seed=until(±1%)"]) == [
        "a=1",
        "hydra/sweeper=seeds",
        "hydra.sweeper.params.seed='until(±1%)'",
    ]
    plan = make_plan("digits_mlp", ["seed=until(±1%)", "optimizer.lr=1,2"])
    assert plan.adaptive and plan.swept == ["seed", "optimizer.lr"]
    assert plan.folder == make_plan("digits_mlp", ["seed=1,2", "optimizer.lr=1,2"]).folder
    made = plan.make_source(project)
    assert isinstance(made, AdaptiveSeeds) and (made.width, made.relative, len(made.states)) == (
        0.01,
        True,
        2,
    )
