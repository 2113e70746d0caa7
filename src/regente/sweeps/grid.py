"""Every combination of the values given with commas, `choice()` and `range()`; they are counted before they are made.

The keys of a group of `sweep.zip` count as one key, and so do the columns of `sweep.trials_file`.
"""

import builtins
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep

from regente.config.compose import parse
from regente.config.overrides import key_of
from regente.errors import ConfigError, Problem
from regente.sweeps.protocols import TrialResult, TrialSpec
from regente.sweeps.trials_file import Table, table, together


class Grid:
    """The TrialSource of a plain sweep; `params` is `hydra.sweeper.params`, which the command line overrules."""

    adaptive = False

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str],
        config: dict[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        max_batch_size: int | None = None,  # Hydra's setting; without effect, there are no batches
        zip: Any = None,  # noqa: A002
        trials_file: str | None = None,
    ) -> None:
        words = [f"{key}={value}" for key, value in (params or {}).items()]
        self.overrides = _by_key(parse(words)) | _by_key(parse(overrides))
        self.sizes = {key: math.prod(map(_size, each)) for key, each in self.overrides.items()}
        self.axes = together(self.sizes, zip)
        self.table = table(trials_file) if trials_file else None
        if self.table:
            _refuse_overlap(self.sizes, self.table)
        self.total: int | None = math.prod(self._lengths().values())
        self._trials: Iterator[TrialSpec] | None = None

    def ask(self) -> TrialSpec | None:
        """The next combination; the last key varies first, the rows of a table before the others."""
        if self._trials is None:
            self._trials = (TrialSpec(number, words) for number, words in enumerate(self._combinations()))
        return next(self._trials, None)

    def _combinations(self) -> Iterator[list[str]]:
        words = {key: list(itertools.product(*map(_words, each))) for key, each in self.overrides.items()}
        columns = [builtins.zip(*(words[key] for key in axis), strict=True) for axis in self.axes]
        for chosen in itertools.product(*columns):
            whole = [word for axis in chosen for of_key in axis for word in of_key]
            for row in self.table.rows if self.table else [[]]:  # a row overrules the other keys
                last = {key_of(word): word for word in row}
                yield [*(last.pop(key_of(word), word) for word in whole), *last.values()]

    def _lengths(self) -> dict[str, int]:
        """The number of values of each key that varies."""
        lengths = {"+".join(axis): self.sizes[axis[0]] for axis in self.axes}
        return lengths | ({"sweep.trials_file": len(self.table.rows)} if self.table else {})

    def tell(self, trial: TrialSpec, outcome: TrialResult) -> None:
        """Results do not change a grid."""

    def shape(self) -> str:
        """`optimizer.lr 3 x seed 5`."""
        parts = [f"{key} {size:,}" for key, size in self._lengths().items() if size > 1]
        return " x ".join(parts) or "1"


def _refuse_overlap(sizes: Mapping[str, int], found: Table) -> None:
    """Refuse keys that vary both in a table and on the command line."""
    if both := [key for key in found.keys if sizes.get(key.lstrip("+"), 1) > 1]:
        what = f"{both[0]} has several values on the command line too; give them in one of the two places"
        raise ConfigError([Problem("sweep.trials_file", what)])


def _by_key(overrides: Sequence[Override]) -> dict[str, list[Override]]:
    """The overrides of each key that count, as in Hydra: the last one, and mappings beside each other."""
    found: dict[str, list[Override]] = {}
    for override in overrides:
        key = override.get_key_element().lstrip("+")
        before = found.get(key, [])
        found[key] = [*(before if all(map(_is_mapping, [*before, override])) else []), override]
    return found


def _is_mapping(override: Override) -> bool:
    value: Any = override.value()
    return all(isinstance(each, dict) for each in (value.list if isinstance(value, ChoiceSweep) else [value]))


def _size(override: Override) -> int:
    if not override.is_sweep_override():
        return 1
    if not override.is_discrete_sweep():
        word = str(override.input_line).removeprefix("++")
        raise ConfigError([Problem(word, "a range to search; add hydra/sweeper=optuna, or list the values")])
    value = override.value()
    if isinstance(value, RangeSweep) and value.start is not None and value.stop is not None:
        return max(0, math.ceil((value.stop - value.start) / value.step))
    return sum(1 for _ in override.sweep_iterator())


def _words(override: Override) -> Iterator[str]:
    key = override.get_key_element()
    if override.is_sweep_override():
        yield from (f"{key}={value}".removeprefix("++") for value in override.sweep_string_iterator())
    elif override.is_delete():
        yield str(override.input_line)
    else:
        yield f"{key}={override.get_value_element_as_str()}".removeprefix("++")
