"""The distributions of a search, in Hydra's own grammar: `interval(1e-4, 1e-1)`, `choice(a, b)`, `range(1, 9)` ..."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from regente.config.discovery import suggest
from regente.errors import ConfigError, Problem
from regente.sweeps.trials_file import Table

Value = str | int | float | bool


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool = False  # integers only
    log: bool = False  # uniform in the logarithm
    step: float | None = None

    def text(self, value: Value) -> str:
        """A drawn value as an override writes it."""
        if self.step is not None:
            value = float(f"{float(value):.12g}")  # 0.1 + 0.2 is 0.3
        return str(int(value) if self.whole else value)

    @property
    def ends(self) -> list[str]:
        """The values to try before a search starts."""
        return [self.text(self.low), self.text(self.high)]

    @property
    def values(self) -> list[Value] | None:
        """All values; None for a continuous interval."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return None
        count = int((self.high - self.low) / step + 1e-9) + 1
        values = [self.low + number * step for number in range(count)]
        return [int(value) for value in values] if self.whole else list(values)


@dataclass(frozen=True)
class Choice:
    """One of several values; `texts` are the same values as overrides write them."""

    choices: tuple[Value, ...]
    texts: tuple[str, ...]

    def text(self, value: Value) -> str:
        """A drawn value as an override writes it."""
        # not choices.index: 1, 1.0 and True are equal
        return next(
            text
            for own, text in zip(self.choices, self.texts, strict=True)
            if own == value and type(own) is type(value)
        )

    @property
    def ends(self) -> list[str]:
        """The values to try before a search starts."""
        return list(self.texts)

    @property
    def values(self) -> list[Value]:
        """All values."""
        return list(self.choices)


Distribution = Interval | Choice


@dataclass(frozen=True)
class Space:
    """The keys of a search with their distributions, and the overrides that all its jobs share."""

    drawn: dict[str, Distribution]
    fixed: list[str]

    def overrides(self, params: Mapping[str, Value]) -> list[str]:
        """The overrides of one trial; a key without a distribution is one that the user's own function has suggested."""
        words = [
            f"{key}={self.drawn[key].text(value) if key in self.drawn else value}"
            for key, value in params.items()
        ]
        return [*self.fixed, *words]

    def rows(self, table: Table) -> list[dict[str, Value]]:
        """The rows of a table as parameters.

        Raises:
            ConfigError: for a key that has no distribution, or a value outside of it.
        """
        problems, found = [], []
        for number, words in enumerate(table.rows, 2):
            row: dict[str, Value] = {}
            for key, text in (word.split("=", 1) for word in words):
                each, value = self.drawn.get(key), _value(text)
                if each is None:
                    what = f"{key} is not searched; {suggest(key, list(self.drawn))}"
                    problems.append(Problem("sweep.trials_file", what))
                elif isinstance(each, Choice) and value not in each.choices:
                    problems.append(
                        Problem(f"sweep.trials_file: {key}={text}", f"there is: {', '.join(each.texts)}")
                    )
                elif isinstance(each, Interval) and (
                    isinstance(value, str) or not each.low <= value <= each.high
                ):
                    what = f"row {number} is not from {each.low:g} to {each.high:g}"
                    problems.append(Problem(f"sweep.trials_file: {key}={text}", what))
                row[key] = value
            found.append(row)
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return found

    def extremes(self) -> Iterator[list[str]]:
        """Overrides whose configs together hold each choice and both ends of each interval."""
        columns = {key: each.ends for key, each in self.drawn.items()}
        for row in range(max(map(len, columns.values()), default=1)):
            yield [*self.fixed, *(f"{key}={ends[row % len(ends)]}" for key, ends in columns.items())]


def space(overrides: Sequence[str], params: Mapping[str, Any]) -> Space:
    """The space of a command line and of `hydra.sweeper.params`; the command line overrules the latter.

    Raises:
        ConfigError: with every distribution that a search cannot use.
    """
    words = [*(f"{key}={value}" for key, value in flat(params).items()), *overrides]
    drawn: dict[str, Distribution] = {}
    fixed: dict[str, str] = {}
    problems: list[Problem] = []
    for word in words:
        try:
            override = OverridesParser.create().parse_override(word)
            found = _distribution(override, word) if override.is_sweep_override() else None
        except HydraException as error:
            problems.append(Problem(word, f"cannot be read ({_reason(error)}); {FORMS}"))
            continue
        except ConfigError as error:
            problems += error.problems
            continue
        key = override.input_line.partition("=")[0] if override.input_line else override.key_or_group
        drawn.pop(key, None), fixed.pop(key, None)
        if found is None:
            fixed[key] = word
        else:
            drawn[key] = found
    if problems:
        raise ConfigError(problems)
    return Space(drawn, list(fixed.values()))


FORMS = "there is: interval(a, b), int(interval(a, b)), tag(log, interval(a, b)), range(a, b), choice(x, y)"


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys as dotted ones: `{optimizer: {lr: x}}` becomes `{optimizer.lr: x}`."""
    leaves: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            leaves |= {f"{key}.{inner}": each for inner, each in flat(value).items()}
        elif isinstance(value, list | tuple):
            leaves[key] = ",".join(map(str, value))
        else:
            leaves[key] = "null" if value is None else value
    return leaves


def _distribution(override: Override, word: str) -> Distribution:
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return _checked(Interval(value.start, value.end, whole, "log" in value.tags), word)
    if isinstance(value, RangeSweep) and not value.shuffle:
        return _range(value, word)
    if isinstance(value, ChoiceSweep | RangeSweep):
        texts = list(dict.fromkeys(override.sweep_string_iterator()))
        return Choice(tuple(map(_value, texts)), tuple(texts))
    raise ConfigError([Problem(word, f"a search cannot draw from it; {FORMS}")])


def _range(value: RangeSweep, word: str) -> Interval:
    """Hydra's range, which stops before its end."""
    assert value.start is not None and value.stop is not None
    values = list(value.range())
    if not values:
        raise ConfigError([Problem(word, "an empty range; the second number is the larger one")])
    log = "log" in value.tags
    if log and abs(value.step) != 1:
        raise ConfigError(
            [Problem(word, "a range with a step has no log; use tag(log, int(interval(a, b)))")]
        )
    low, high = float(min(values)), float(max(values))
    whole = all(isinstance(each, int) for each in values)
    return _checked(Interval(low, high, whole, log, None if log else abs(float(value.step))), word)


def _checked(interval: Interval, word: str) -> Interval:
    if interval.low > interval.high:
        raise ConfigError(
            [Problem(word, f"{interval.low:g} is above {interval.high:g}; the lower end first")]
        )
    if interval.log and interval.low <= 0:
        what = f"a logarithm needs numbers above 0, not {interval.low:g}; give a small one, as 1e-5"
        raise ConfigError([Problem(word, what)])
    return interval


def _value(text: str) -> Value:
    """A value that Optuna can store: a number, a boolean or a text."""
    element = OverridesParser.create().parse_override(f"x={text}").value()
    return element if isinstance(element, int | float | bool) else text


def _reason(error: HydraException) -> str:
    """The first line of a message of Hydra's parser."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"^.*? while evaluating '.*?': ", "", line)[:120]
