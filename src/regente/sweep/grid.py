"""Every combination of the values given with commas, `choice()` and `range()`: counted first, then made one by one."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, RangeSweep

from regente.compose import parse
from regente.errors import ConfigError, Problem
from regente.sweep.protocols import Outcome, Point


class Grid:
    """The source of a plain sweep; `params` is `hydra.sweeper.params`, which the command line overrules."""

    adaptive = False

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str],
        config: dict[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        max_batch_size: int | None = None,  # Hydra's own: here jobs follow one another without batches
    ) -> None:
        words = [f"{key}={value}" for key, value in (params or {}).items()]
        # the last of two words for one key counts, as it does in Hydra
        self.axes = {override.get_key_element(): override for override in parse([*words, *overrides])}
        self.sizes = {key: _size(override) for key, override in self.axes.items()}
        self.total: int | None = math.prod(self.sizes.values())
        self._points: Iterator[Point] | None = None

    def ask(self) -> Point | None:
        """The next combination; the last key varies first."""
        if self._points is None:
            values = [list(_words(key, override)) for key, override in self.axes.items()]
            self._points = (
                Point(number, list(words)) for number, words in enumerate(itertools.product(*values))
            )
        return next(self._points, None)

    def tell(self, point: Point, outcome: Outcome) -> None:
        """A grid learns nothing."""

    def shape(self) -> str:
        """`optimizer.lr 3 x seed 5`."""
        parts = [f"{key.lstrip('+')} {size:,}" for key, size in self.sizes.items() if size > 1]
        return " x ".join(parts) or "1"


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


def _words(key: str, override: Override) -> Iterator[str]:
    if override.is_sweep_override():
        yield from (f"{key}={value}".removeprefix("++") for value in override.sweep_string_iterator())
    elif override.is_delete():
        yield str(override.input_line)
    else:
        yield f"{key}={override.get_value_element_as_str()}".removeprefix("++")
