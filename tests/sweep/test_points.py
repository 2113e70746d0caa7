"""Sweeps that are no full grid."""

from pathlib import Path

import pytest

from regente.errors import ConfigError
from regente.sweep.points import joined, table

VALUES = {"a": ["a=1", "a=2"], "b": ["b=3", "b=4"], "c": ["c=5", "c=6", "c=7"], "d": ["d=8"]}


def test_keys_that_go_together_are_one_axis_and_the_others_stay_their_own() -> None:
    axes = joined(VALUES, ["a", "b"])
    assert [axis.keys for axis in axes] == [("a", "b"), ("c",), ("d",)]
    assert [list(row) for row in axes[0].rows] == [["a=1", "b=3"], ["a=2", "b=4"]]


def test_without_groups_each_key_is_an_axis() -> None:
    assert [axis.keys for axis in joined(VALUES, None)] == [("a",), ("b",), ("c",), ("d",)]


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
        joined(VALUES, groups)
    assert telling in str(raised.value)


def test_the_rows_of_a_csv_file_are_points(project: Path) -> None:
    (project / "points.csv").write_text(
        'optimizer.lr,model,data.name,model.hidden\n1e-2,mlp,two words,\n\n1e-3,cnn,"it\'s","[1,2]"\n'
    )
    found = table("points.csv")
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
    (project / "points.csv").write_text(text)
    with pytest.raises(ConfigError) as raised:
        table("points.csv")
    assert telling in str(raised.value)


def test_a_file_that_is_not_there_is_told(project: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        table("nowhere.csv")
