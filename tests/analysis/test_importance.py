"""Which settings mattered, which act together, and which changed nothing to the bit."""

import json
from itertools import product
from pathlib import Path

import pytest

from regente.analysis import importance as module
from regente.analysis.comparison import compare
from regente.analysis.importance import FANOVA, MAIN_EFFECTS, Importance, dead_pairs, importance
from tests.analysis.conftest import write_run


def trace(path: Path, loss: float) -> None:
    line = {"step": 1, "losses": [loss], "weights": str(loss)}
    (path / "trace.jsonl").write_text(json.dumps(line) + "\n")


def runs(project: Path) -> Importance:
    """lr matters, width little, both act together; smooth is read by nobody."""
    for lr, width, smooth, seed in product((0.1, 0.01, 0.001), (8, 16), (0, 1), (1, 2)):
        together = 0.1 * (lr == 0.1 and width == 16)
        value = 0.5 + 0.3 * (lr == 0.1) - 0.2 * (lr == 0.001) + 0.02 * (width == 16) + together + 0.001 * seed
        model = {"width": width, "smooth": smooth}
        path = write_run(project / "runs" / "exp", seed, value, name=f"{lr}-{width}-{smooth}-{seed}",
                         optimizer={"lr": lr}, model=model)  # fmt: skip
        trace(path, value)
    found = compare(["exp"], project)
    return importance(found.runs, found.metric)


def test_what_matters_comes_first_and_a_dead_key_is_named(project: Path) -> None:
    found = runs(project)
    assert (found.method, found.n) == (FANOVA, 24)
    assert [each.key for each in found.effects][:2] == ["optimizer.lr", "model.width"]
    shares = {each.key: each.share for each in found.effects}
    assert shares["optimizer.lr"] > 0.8 > 0.2 > (shares["model.width"] or 0) > (shares["model.smooth"] or 0)
    assert [each[:2] for each in found.interactions] == [("optimizer.lr", "model.width")]
    assert {each.key: each.dead for each in found.effects if each.dead} == {"model.smooth": 12}
    first = found.effects[0].levels
    assert (first[0][0], first[0][2], first[-1][0]) == ("0.1", 8, "0.001")
    lines = list(found.lines())
    assert lines[0] == "val/acc of 24 runs, by fANOVA of Optuna"
    assert lines[-1] == "  model.smooth is dead: it changed nothing to the bit in 12 pairs of runs"
    # one run with another bit
    path = project / "runs" / "exp" / "0.1-8-0-1"
    trace(path, 0.123)
    again = compare(["exp"], project)
    assert dead_pairs(again.runs, "model.smooth") == 0


def test_without_optuna_main_effects_say_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    found = runs(project)
    assert found.method == MAIN_EFFECTS
    assert [each.key for each in found.effects][:2] == ["optimizer.lr", "model.width"]
    shares = {each.key: each.share or 0 for each in found.effects}
    assert shares["optimizer.lr"] > 0.8
    assert shares["model.smooth"] == pytest.approx(0, abs=1e-3)


def test_few_runs_a_constant_metric_and_no_setting_are_told(project: Path) -> None:
    for seed in (1, 2):
        write_run(project / "runs" / "same", seed, 0.5)
        write_run(project / "runs" / "few", 1, 0.5, name=str(seed), lr=seed / 10)
    found = compare(["same"], project)
    assert [each.share for each in importance(found.runs, found.metric).effects] == [None]
    found = compare(["few"], project)
    assert list(importance(found.runs, found.metric).lines())[1].startswith("     -  lr")
    found = compare(["few"], project)
    alone = importance(found.runs[:1], found.metric)
    assert list(alone.lines()) == ["1 finished runs, which differ in no setting"]


def test_many_values_of_a_search_are_cut_into_thirds(project: Path) -> None:
    for number in range(30):
        write_run(project / "runs" / "search", 0, number / 30, name=str(number), lr=10 ** (-4 + number / 10))
    found = compare(["search"], project)
    (effect,) = importance(found.runs, found.metric).effects
    assert [n for _, _, n in effect.levels] == [10, 10, 10]
    assert effect.levels[0][0] == "0.01 to 0.0794328"
