"""Sweeps that are no full grid."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regente.errors import ConfigError
from regente.sweeps.grid import Grid
from regente.sweeps.trials_file import table, together

SIZES = {"a": 2, "b": 2, "c": 3, "d": 1}


def test_keys_that_go_together_are_one_axis_and_the_others_stay_their_own() -> None:
    assert together(SIZES, ["b", "a"]) == [("b", "a"), ("c",), ("d",)]
    assert together({**SIZES, "d": 3}, [["a", "b"], ["c", "d"]]) == [("a", "b"), ("c", "d")]
    assert together(SIZES, None) == [("a",), ("b",), ("c",), ("d",)]


@pytest.mark.parametrize(
    ("groups", "telling"),
    [
        (["a", "c"], "a has 2, c has 3 values"),
        (["a", "d"], "d has no values of its own"),
        (["a", "x"], "x has no values of its own"),
        ([["a", "b"], ["a", "c"]], "a: is in two groups"),
        ("a", "needs a list of keys"),
    ],
)
def test_groups_that_do_not_fit_are_told(groups: object, telling: str) -> None:
    with pytest.raises(ConfigError) as raised:
        together(SIZES, groups)
    assert telling in str(raised.value)


def test_the_rows_of_a_csv_file_are_points(project: Path) -> None:
    (project / "trials.csv").write_text(
        'optimizer.lr,model,data.name,model.hidden\n1e-2,mlp,two words,\n\n1e-3,cnn,"it\'s","[1,2]"\n'
    )
    found = table("trials.csv")
    assert found.keys == ("optimizer.lr", "model", "data.name", "model.hidden")
    assert found.rows == [
        ["optimizer.lr=1e-2", "model=mlp", "data.name=two words"],
        ["optimizer.lr=1e-3", "model=cnn", "data.name='it\\'s'", "model.hidden=[1,2]"],
    ]


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("lr\n", "needs a header with the keys, and a row for each job"),
        ("lr,lr\n1,2\n", "lr twice"),
        ("lr,seed\n1\n", "row 2 has 1 cells, the header 2"),
        ('lr\n"1,2"\n', "row 2: lr=1,2 is no single value"),
    ],
)
def test_a_file_that_is_no_table_of_points_is_told_with_its_row(
    project: Path, text: str, telling: str
) -> None:
    (project / "trials.csv").write_text(text)
    with pytest.raises(ConfigError) as raised:
        table("trials.csv")
    assert telling in str(raised.value)


def test_a_file_that_is_not_there_is_told(project: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        table("nowhere.csv")


def trials(project: Path, *words: str, **given: object) -> list[list[str]]:
    grid = Grid(project, list(words), {}, **given)  # type: ignore[arg-type]
    found = [trial.overrides for trial in iter(grid.ask, None)]  # type: ignore[union-attr]
    assert len(found) == grid.total
    return found


def test_a_grid_takes_what_goes_together_as_one_and_the_rest_in_every_combination(project: Path) -> None:
    words = ("optimizer.lr=0.1,0.2", "model=cnn,mlp", "seed=3,4", "trainer=cpu")
    assert trials(project, *words, zip=["optimizer.lr", "seed"]) == [
        ["optimizer.lr=0.1", "seed=3", "model=cnn", "trainer=cpu"],
        ["optimizer.lr=0.1", "seed=3", "model=mlp", "trainer=cpu"],
        ["optimizer.lr=0.2", "seed=4", "model=cnn", "trainer=cpu"],
        ["optimizer.lr=0.2", "seed=4", "model=mlp", "trainer=cpu"],
    ]


def test_mappings_for_one_key_go_together_and_of_other_values_the_last_counts(project: Path) -> None:
    words = ("model={a:1},{a:2}", "model={b:1},{b:2}", "seed=1,2", "seed=3")
    assert trials(project, *words) == [
        [f"model={{a:{a}}}", f"model={{b:{b}}}", "seed=3"] for a in (1, 2) for b in (1, 2)
    ]


def test_the_rows_of_a_table_go_with_every_combination_and_have_the_last_word(project: Path) -> None:
    (project / "p.csv").write_text("optimizer.lr,model\n0.1,cnn\n0.2,\n")
    assert trials(project, "model=mlp", "seed=3,4", trials_file="p.csv") == [
        ["model=cnn", "seed=3", "optimizer.lr=0.1"],
        ["model=mlp", "seed=3", "optimizer.lr=0.2"],
        ["model=cnn", "seed=4", "optimizer.lr=0.1"],
        ["model=mlp", "seed=4", "optimizer.lr=0.2"],
    ]


def test_a_dry_run_shows_the_points_and_a_sweep_of_a_table_is_found_again(
    regente: Callable[..., Any], project: Path
) -> None:
    (project / "p.csv").write_text("optimizer.lr,model.dropout\n0.1,\n0.2,0.5\n")
    ended = regente("train", "digits_mlp", "-m", "--dry-run", "sweep.trials_file=p.csv", "seed=1,2")
    assert ended.code == 0, ended.err
    assert "4 jobs" in ended.out
    assert "optimizer.lr=0.2 model.dropout=0.5" in ended.out
    ended = regente("train", "digits_mlp", "-m", "--dry-run", "sweep.trials_file=p.csv", "optimizer.lr=1,2")
    assert ended.code == 2
    assert ended.lines == [
        "sweep.trials_file: optimizer.lr has several values on the command line too; give them in one of the two places"
    ]
