"""Trials that are not a full grid: keys that vary together (`sweep.zip`), and the rows of a CSV file (`sweep.trials_file`)."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from regente.config.discovery import suggest
from regente.errors import ConfigError, Problem


@dataclass(frozen=True)
class Table:
    """Keys that vary together: each row has an override for each key, or none for a key that keeps its value."""

    keys: tuple[str, ...]
    rows: list[list[str]]


def together(sizes: Mapping[str, int], groups: Any) -> list[tuple[str, ...]]:
    """The axes of a grid: one for each group of keys, and one for each other key; `sizes` are their numbers of values.

    `groups` is `sweep.zip`: a list of keys, or a list of such lists.

    Raises:
        ConfigError: for keys that have no values of their own, or not as many as the others of their group.
    """
    found = [tuple(map(str, group)) for group in _groups(groups)]
    problems = [problem for group in found for problem in _problems(sizes, group)]
    several = [key for key in sizes if sum(key in group for group in found) > 1]
    problems += [Problem(f"sweep.zip: {key}", "is in two groups; it can be in one") for key in several]
    if problems:
        raise ConfigError(problems)
    return list(dict.fromkeys(next((g for g in found if key in g), (key,)) for key in sizes))


def _groups(groups: Any) -> list[list[Any]]:
    if not groups:
        return []
    if not isinstance(groups, list):
        what = "needs a list of keys, as [optimizer.lr,seed], or a list of such lists"
        raise ConfigError([Problem(f"sweep.zip={groups}", what)])
    return groups if isinstance(groups[0], list) else [groups]


def _problems(sizes: Mapping[str, int], group: tuple[str, ...]) -> list[Problem]:
    where = f"sweep.zip=[{','.join(group)}]"
    several = [key for key, size in sizes.items() if size > 1]
    if missing := [key for key in group if key not in several]:
        hint = suggest(missing[0], several) if several else "give it several: KEY=1,2,3"
        return [Problem(where, f"{missing[0]} has no values of its own; {hint}")]
    if len({sizes[key] for key in group}) > 1:
        counts = ", ".join(f"{key} has {sizes[key]}" for key in group)
        return [Problem(where, f"{counts} values; keys that vary together need the same number")]
    return []


def table(path: str) -> Table:
    """The rows of a CSV file whose header names the keys; an empty cell leaves its key as it is.

    Raises:
        ConfigError: for a file that cannot be read, and for every cell that is no value.
    """
    where = f"sweep.trials_file={path}"
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(where, f"cannot be read ({what}); name a CSV file")]) from error
    if len(lines) < 2:
        raise ConfigError([Problem(where, "needs a header with the keys, and a row for each job")])
    keys = [cell.strip() for cell in lines[0]]
    problems = [Problem(f"{path}:1", f"{key or 'a column without a name'} twice") for key in _twice(keys)]
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(keys):
            what = f"row {number} has {len(line)} cells, the header {len(keys)}"
            problems.append(Problem(path, f'{what}; quote a value with commas: "[1,2]"'))
            continue
        cells = [(key, cell.strip()) for key, cell in zip(keys, line, strict=True) if cell.strip()]
        words = [_word(key, cell) for key, cell in cells]
        problems += [
            Problem(f"{path}, row {number}", f"{key}={cell} is no single value; quote it: '{cell}'")
            for (key, cell), word in zip(cells, words, strict=True)
            if word is None
        ]
        rows.append([word for word in words if word is not None])
    if problems:
        raise ConfigError(problems)
    return Table(tuple(keys), rows)


def _twice(keys: Sequence[str]) -> list[str]:
    return sorted({key for key in keys if not key or keys.count(key) > 1})


def _word(key: str, cell: str) -> str | None:
    """`key=cell` as Hydra reads it; a cell that Hydra cannot read is a text, one that means several values is none."""
    parser = OverridesParser.create()
    try:
        override = parser.parse_override(f"{key}={cell}")
    except HydraException:
        quoted = cell.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{quoted}'"
    return None if override.is_sweep_override() else f"{key}={cell}"
