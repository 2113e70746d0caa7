"""Columns of numbers from CSV and Parquet files."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from regente.config.discovery import suggest
from regente.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = (".csv", ".gz", ".parquet")
Missing = Literal["refuse", "forward"]  # refuse them, or repeat the value before


def open_table(path: Path) -> "pa.Table":
    """A `.csv` (gzipped or not) or `.parquet` file; the first line of a CSV names the columns.

    Raises:
        DataError: when there is no such file, or it cannot be read in the format of its suffix.
    """
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "no such file; name an existing one"
        raise DataError(f"data.path={path}: {what}")
    import pyarrow as pa

    try:
        table = _reader(path)(str(path))
    except (pa.ArrowException, OSError, UnicodeError) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "CSV"
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"{path}: cannot be read as {kind} ({first}); repair it, or name another one: data.path=..."
        ) from error
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns have the name {twice!r}; rename one of them in the first line")
    if len(table) == 0:
        raise DataError(f"{path}: has no rows; at least one would be right")
    return table


def _reader(path: Path) -> Callable[[str], Any]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return lambda file: parquet.read_table(file)
    if path.suffix == ".csv" or path.suffixes[-2:] == [".csv", ".gz"]:
        return _read_csv
    raise DataError(f"data.path={path}: its name ends neither in .csv, .csv.gz nor .parquet")


def _read_csv(file: str) -> "pa.Table":
    """A CSV file with commas, or with semicolons or tabs and, there, decimal points or commas; UTF-8 or Latin-1."""
    import pyarrow as pa
    from pyarrow import csv, types

    with pa.input_stream(file, compression="detect") as lines:
        text = lines.read()
    first = re.sub(rb'"[^"]*"', b"", text.partition(b"\n")[0])
    # the comma where there is none of them
    separator = max(",;\t", key=lambda each: first.count(each.encode()))
    encoding = "utf-8"

    def read(point: str) -> "pa.Table":
        return csv.read_csv(
            BytesIO(text),
            csv.ReadOptions(encoding=encoding),
            csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            csv.ConvertOptions(decimal_point=point),
        )

    table = read(".")
    try:
        table.column_names  # noqa: B018 - decodes them
        is_utf8 = not any(map(types.is_binary, table.schema.types))  # else Arrow leaves them bytes
    except UnicodeDecodeError:
        is_utf8 = False
    if not is_utf8:
        encoding = "latin-1"
        table = read(".")
    if separator == "," or len(numeric_columns(table)) == len(table.column_names):
        return table
    other = read(",")
    return other if len(numeric_columns(other)) > len(numeric_columns(table)) else table


def numeric_columns(table: "pa.Table") -> list[str]:
    """The names of the columns of numbers in the order of the file; a column without a name is a row counter."""
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return [f.name for f in table.schema if f.name and any(test(f.type) for test in tests)]


def read_column(table: "pa.Table", name: str, setting: str, path: Path, missing: Missing) -> np.ndarray:
    """A column as float64 [N]; `setting` is where the config names it.

    Raises:
        DataError: when there is no such column, it does not hold numbers, or a number is missing or infinite.
    """
    if name not in table.column_names:
        raise DataError(f"{setting}: no column {name!r} in {path}; {suggest(name, table.column_names)}")
    if name not in numeric_columns(table):
        raise DataError(
            f"{setting}: column {name!r} of {path} is not a column of numbers{_first_text(table, name)}"
        )
    import pyarrow as pa

    column: np.ndarray = table.column(name).cast(pa.float64()).to_numpy()
    gaps, infinite = np.isnan(column), np.isinf(column)
    if infinite.any():
        raise DataError(
            f"{path}: column {name!r} is infinite in row {first_row(infinite)}; correct it, or leave the column out"
        )
    if not gaps.any():
        return column
    if missing == "refuse":
        count = f"{gaps.sum()} of {len(gaps)} values are"
        raise DataError(
            f"{path}: column {name!r} has no value in row {first_row(gaps)} ({count} missing); "
            "data.missing=forward repeats the value before"
        )
    if gaps[0]:
        raise DataError(
            f"{path}: column {name!r} has its first value in row {first_row(~gaps)}; "
            "remove the rows before it, or leave the column out"
        )
    latest = np.maximum.accumulate(np.where(gaps, 0, np.arange(len(column))))
    return np.take(column, latest)


def first_row(where: np.ndarray) -> int:
    """The first row where this is true, counted from 1 without the line of names."""
    return int(where.argmax()) + 1


def _first_text(table: "pa.Table", name: str) -> str:
    """The first value that makes a column text, or the type of the column, for an error message."""
    for row, value in enumerate(table.column(name).to_pylist(), start=1):
        try:
            float(value or 0)
        except (TypeError, ValueError):
            return f": {value!r} in row {row}; there is: {', '.join(numeric_columns(table)) or 'none'}"
    return f", it holds {table.schema.field(name).type}"
