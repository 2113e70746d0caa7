"""Windows over a series, forecasts and moves, and what a file may have wrong with it."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from regente.data.core.tables import open_table
from regente.data.direction import Direction
from regente.data.series import Series, SeriesWindows, synthetic_series
from regente.errors import ConfigError, DataError

PARTS = ("train", "val", "test")


def series(path: Path | None, kind: type[Series] = Series, **arguments: Any) -> Series:
    if kind is Direction:
        arguments = {"num_classes": 2, "class_names": ["not higher", "higher"], **arguments}
    settings = {"batch_size": 8, "target": "a", "window": 4, "input_shape": [4, 2], **arguments}
    data = kind(path=str(path) if path else None, **settings)
    data.setup("fit")
    return data


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.fixture
def table() -> dict[str, np.ndarray]:
    """100 rows: `a` climbs, much faster in the end; `b` swings; `day` is text."""
    a = np.arange(100.0)
    a[80:] *= 50
    return {"day": np.array([f"day {i}" for i in range(100)]), "a": a, "b": np.sin(a)}


@pytest.fixture
def file(tmp_path: Path, table: dict[str, np.ndarray]) -> Path:
    rows = "\n".join(",".join(map(str, row)) for row in zip(*table.values(), strict=True))
    return write(tmp_path, ",".join(table) + "\n" + rows + "\n")


def test_a_forecasts_target_is_the_value_so_many_rows_after_the_window(file: Path) -> None:
    data = series(file, horizon=3)
    x, y = data.splits["train"].batch(torch.tensor([0, 5]))
    assert x.shape == (2, 4, 2)
    torch.testing.assert_close(data.unscale(x[:, :, 0]), torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8.0]]))
    torch.testing.assert_close(data.unscale(y), torch.tensor([[6.0], [11.0]]))


def test_a_move_is_higher_or_not_and_equal_is_not(tmp_path: Path) -> None:
    values = [1, 2, 2, 1, 5, 5, 6, 7] * 5
    file = write(tmp_path, "a\n" + "\n".join(map(str, values)) + "\n")
    data = series(file, Direction, window=2, input_shape=[2, 1], val_share=0.2, test_share=0.2)
    _, y = data.splits["train"].batch(torch.arange(7))
    assert y.tolist() == [0, 0, 1, 0, 1, 1, 0]  # from 2 to 2, to 1, to 5, to 5, to 6, to 7, and to 1 again
    far = series(file, Direction, window=2, horizon=2, input_shape=[2, 1], val_share=0.2, test_share=0.2)
    assert far.splits["train"].batch(torch.arange(5))[1].tolist() == [0, 1, 1, 1, 1]


def test_windows_do_not_cross_a_boundary_and_cover_all_else(file: Path) -> None:
    data = series(file, horizon=2, val_share=0.2, test_share=0.2)
    seen = {}
    for name in PARTS:
        windows = data.splits[name]
        assert len(windows) == len(windows.table) - 4 - 2 + 1
        x, y = windows.batch(torch.arange(len(windows)))
        rows = data.unscale(torch.cat([x[:, :, 0].flatten(), y.flatten()]))
        seen[name] = {round(value) for value in rows.tolist()}
    assert seen["train"] == set(range(60))
    assert seen["val"] == set(range(60, 80))
    assert seen["test"] == {50 * row for row in range(80, 100)}


def test_the_scale_is_that_of_the_training_rows_alone(file: Path, table: dict[str, np.ndarray]) -> None:
    data = series(file, val_share=0.2, test_share=0.2)
    train = data.splits["train"].table
    torch.testing.assert_close(train.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(2))
    assert (data.mean, data.std) == (table["a"][:60].mean(), table["a"][:60].std())
    assert data.splits["test"].table[:, 0].min() > 50  # which a scale of all rows would hide


def test_what_comes_later_changes_nothing_for_those_before(tmp_path: Path, file: Path) -> None:
    lines = file.read_text().splitlines()
    changed = [*lines[:81], *(f"x,{row},{row % 7}" for row in range(20))]
    other = series(write(tmp_path, "\n".join(changed) + "\n", "other.csv"), val_share=0.2, test_share=0.2)
    data = series(file, val_share=0.2, test_share=0.2)
    for name in ("train", "val"):
        assert all(map(torch.equal, data.splits[name].tensors, other.splits[name].tensors))


def test_windows_are_the_same_as_if_they_had_been_copied_out_one_by_one() -> None:
    table, labels = torch.randn(50, 3), torch.randn(50, 1)
    windows = SeriesWindows(table, labels, window=7, horizon=2)
    index = torch.randperm(len(windows))
    x, y = windows.batch(index)
    assert torch.equal(x, torch.stack([table[i : i + 7] for i in index]))
    assert torch.equal(y, torch.stack([labels[i + 6 + 2] for i in index]))


def test_the_naive_error_is_that_of_staying_where_one_is(file: Path) -> None:
    data = series(file, horizon=2, val_share=0.2, test_share=0.2)
    assert data.naive_mae("val") == pytest.approx(2)
    assert data.naive_mae("test") == pytest.approx(100)


def test_a_target_need_not_be_among_the_columns(file: Path) -> None:
    data = series(file, columns=["b"], input_shape=[4, 1])
    x, y = data.splits["train"].batch(torch.tensor([0]))
    assert x.shape == (1, 4, 1)
    assert data.unscale(y).item() == pytest.approx(4)


def test_parquet_and_gzipped_csv_give_the_same_as_csv(
    tmp_path: Path, file: Path, table: dict[str, np.ndarray]
) -> None:
    parquet.write_table(pa.table(table), tmp_path / "table.parquet")
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
    digests = [series(tmp_path / name).identity()["digest"] for name in ("table.parquet", "table.csv.gz")]
    assert digests == [series(file).identity()["digest"]] * 2


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    rows = {"größe": [1.5, -0.25], "n": [3.0, 4.0]}
    texts = {
        "semicolons and decimal commas, Latin-1": "größe;n\r\n1,5;3\r\n-0,25;4\r\n".encode("latin-1"),
        "semicolons and points": "größe;n\n1.5;3\n-0.25;4\n".encode(),
        "tabs": "größe\tn\n1,5\t3\n-0,25\t4\n".encode(),
        "a byte order mark": "\ufeffgröße,n\n1.5,3\n-0.25,4\n".encode(),
    }
    for name, text in texts.items():
        (tmp_path / "x.csv").write_bytes(text)
        assert open_table(tmp_path / "x.csv").to_pydict() == rows, name
    (tmp_path / "x.csv").write_bytes('"a,b,c";n\nx;1\ngröße;2\n'.encode("latin-1"))
    assert open_table(tmp_path / "x.csv").to_pydict() == {"a,b,c": ["x", "größe"], "n": [1, 2]}


def test_a_counter_of_rows_without_a_name_is_no_column(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i % 9}" for i in range(60))  # as pandas writes an index
    assert series(write(tmp_path, f",a\n{rows}\n"), input_shape=[4, 1]).names == ["a"]


def test_the_synthetic_series_follows_its_formula() -> None:
    table = synthetic_series(1000)
    t = np.arange(3, 1000)
    seasons = 20 + 3 * np.sin(2 * np.pi * t / 24) + 2 * np.sin(2 * np.pi * t / 168)
    noise = table["load"][3:] - seasons - table["weather"][:-3]
    assert np.std(noise[1:] - 0.5 * noise[:-1]) == pytest.approx(0.2, rel=0.1)
    assert np.array_equal(synthetic_series(1000)["load"], table["load"])


def test_a_missing_value_is_refused_or_on_demand_the_one_before(tmp_path: Path) -> None:
    values = [str(i % 11) for i in range(60)]
    values[6] = values[7] = ""
    file = write(tmp_path, "a,b\n" + "\n".join(f"{value},{i}" for i, value in enumerate(values)) + "\n")
    with pytest.raises(DataError, match=r"'a' has no value in row 7 \(2 of 60 .*; data.missing=forward"):
        series(file)
    data = series(file, missing="forward")
    assert data.unscale(data.splits["train"].table[4:9, 0]).round().tolist() == [4, 5, 5, 5, 8]
    values[0] = ""
    file = write(tmp_path, "a,b\n" + "\n".join(f"{value},{i}" for i, value in enumerate(values)) + "\n")
    with pytest.raises(DataError, match=r"'a' has its first value in row 2.*remove the rows before it"):
        series(file, missing="forward")


ROWS = "\n".join(f"{i},{i % 5}" for i in range(60)) + "\n"
FAULTS = {
    "no number": (
        "a,b\nx,y\n",
        {},
        r"no column of numbers, but a \(string\), b \(string\); a comma between columns",
    ),
    "target": ("load,b\n" + ROWS, {"target": "laod"}, r"data.target=laod: no column .*did you mean load\?"),
    "columns": ("a,b\n" + ROWS, {"columns": ["a", "c"]}, r"data.columns: no column 'c' in .*there is: a, b"),
    "text": (
        "a,b\n" + ROWS + "61,?\n",
        {"columns": ["b"]},
        r"'b' .* is not a column of numbers: '\?' in row 61",
    ),
    "infinite": ("a,b\n" + ROWS + "inf,1\n", {}, r"'a' is infinite in row 61"),
    "constant": ("a,b\n" + "".join(f"{i},3\n" for i in range(60)), {}, r"'b' is 3 in all 42 training rows; "),
    "later": (
        "a,b\n" + "".join(f"{i},{i // 50}\n" for i in range(60)),
        {},
        r"'b' is 0 in all .*until row 51",
    ),
    "short": (
        "a,b\n" + ROWS[:60],
        {},
        r"of 14 rows 2 are for val, but data.window=4 .*horizon=1 need 5; give",
    ),
    "empty": ("", {}, r"table.csv: cannot be read as CSV \(Empty CSV file\)"),
    "names alone": ("a,b\n", {}, r"table.csv: has no rows"),
    "ragged": ("a,b\n1,2\n1,2,3\n", {}, r"cannot be read as CSV \(.*Expected 2 columns, got 3"),
    "twice": ("a,a\n1,2\n", {}, r"two columns have the name 'a'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_file_is_one_line_with_place_and_remedy(fault: str, tmp_path: Path) -> None:
    text, arguments, words = FAULTS[fault]
    with pytest.raises(DataError, match=words) as caught:
        series(write(tmp_path, text), **arguments)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_of_another_kind_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.path=.*nope.csv: no such file"):
        series(tmp_path / "nope.csv")
    with pytest.raises(DataError, match="is a folder"):
        series(tmp_path)
    with pytest.raises(DataError, match=r"neither in .csv, .csv.gz nor .parquet"):
        series(write(tmp_path, "a", "table.xlsx"))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        series(write(tmp_path, "a,b\n" + ROWS, "table.parquet"))
    with pytest.raises(DataError, match="cannot be read as CSV"):
        series(write(tmp_path, "a,b\n" + ROWS, "table.csv.gz"))


def test_a_shape_that_the_file_does_not_have_is_refused_with_the_right_words(file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^data.input_shape: \[4, 3\] declared.* has 2 columns .*=\[4,2\]$"
    ):
        series(file, input_shape=[4, 3])
    with pytest.raises(ConfigError, match=r"data.columns names 1 .*\(b\); add data.input_shape=\[4,1\]"):
        series(file, columns=["b"])


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ConfigError, match="below 1 would leave something to train on"):
        series(None, val_share=0.5, test_share=0.5)
