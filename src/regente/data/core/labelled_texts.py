"""Texts with one label each: rows of a table, or files in a folder per class. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regente.config.discovery import suggest
from regente.data.core.class_folders import SPLITS, class_names, find_splits
from regente.data.core.tables import open_table
from regente.data.core.vocabulary import read_utf8
from regente.errors import DataError

SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


@dataclass
class LabelledTexts:
    """Text, class name and split of each sample, in the order of the file or of the paths."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The class names of the training samples, sorted; whole numbers are sorted by value."""
        names = {label for label, split in zip(self.labels, self.splits, strict=True) if split == "train"}
        whole = all(name.isdecimal() for name in names)
        return sorted(names, key=lambda name: (int(name) if whole else 0, name))


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a table; `split` holds train, val or test; None: there is no such column."""

    text: str = "text"
    label: str = "label"
    split: str | None = None


def read_texts(path: Path, columns: Columns) -> LabelledTexts:
    """The samples of a .csv, .csv.gz or .parquet file, or of a folder: [train/, val/, test/]CLASS/*.txt, UTF-8.

    Raises:
        DataError: when there is no such file, or a column or a value is missing.
    """
    if path.is_dir():
        return _from_folders(path)
    if not path.exists():
        what = "no such file or folder; name a .csv, a .parquet, or a folder with one folder per class"
        raise DataError(f"data.path={path}: {what}")
    return _from_table(path, columns)


def _from_table(path: Path, columns: Columns) -> LabelledTexts:
    table = open_table(path)

    def column(setting: str, name: str) -> list[str]:
        if name not in table.column_names:
            what = f"no column {name!r} in {path}; {suggest(name, table.column_names)}"
            raise DataError(f"data.{setting}={name}: {what}")
        values: list[Any] = table.column(name).to_pylist()
        if None in values:
            row = values.index(None) + 1
            raise DataError(
                f"{path}: column {name!r} has no value in row {row}; correct it, or remove the row"
            )
        return [str(value) for value in values]

    texts, labels = column("text_column", columns.text), column("label_column", columns.label)
    if columns.split is None:
        return LabelledTexts(texts, labels, ["train"] * len(texts))
    named = column("split_column", columns.split)
    if odd := next((name for name in named if name not in SPLIT_OF), None):
        what = f"{odd!r} in row {named.index(odd) + 1} is not a split; train, val or test would be right"
        raise DataError(f"{path}: column {columns.split!r}: {what}")
    return LabelledTexts(texts, labels, [SPLIT_OF[name] for name in named])


def _from_folders(root: Path) -> LabelledTexts:
    found = LabelledTexts()
    for split, folder in find_splits(root).items():
        for name in class_names(folder):
            files = sorted((folder / name).rglob("*.txt"))
            if not files and split == "train":
                raise DataError(f"{folder / name}: no *.txt; add some, or remove the directory")
            found.texts += map(read_utf8, files)
            found.labels += [name] * len(files)
            found.splits += [split] * len(files)
    return found
