"""`hydra/sweeper=seeds`, or `seed=until(0.5%)`: seeds are added until the mean of the monitored metric is known well enough.

To stop at the first narrow interval would make 95 % intervals hold the truth less often: a spread that is small by
chance ends the sweep. So the interval is looked at only after LOOKS numbers of seeds, and each look takes its part of
the 5 % (Bonferroni; for group-sequential looks see Jennison and Turnbull, "Group Sequential Methods", 1999). All looks
together miss the truth in at most 5 % of sweeps, whichever one is the last, for normally distributed values.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regente.analysis.intervals import LEVEL, half_width
from regente.config.overrides import key_of
from regente.errors import ConfigError, Problem
from regente.sweeps.grid import Grid
from regente.sweeps.protocols import TrialResult, TrialSpec

LOOKS = (3, 5, 8, 12, 18, 27, 40, 60, 90)  # numbers of seeds after which the interval is looked at
UNTIL = re.compile(r"until\((.*)\)", re.DOTALL)
SIZE = re.compile(r"(?:±|\+-)?\s*(\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(%?)")


@dataclass
class Configuration:
    """The seeds of one configuration."""

    words: list[str]
    looks: tuple[int, ...]
    asked: int = 0
    ended: int = 0
    look: int = 0  # the next one
    values: list[float] = field(default_factory=list)
    is_done: bool = False

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the mean, at the level that each look has."""
        return half_width(self.values, 1 - (1 - LEVEL) / len(self.looks))

    @property
    def target(self) -> int:
        """How many seeds the next look is after."""
        return self.looks[self.look]


class AdaptiveSeeds:
    """A TrialSource (see regente.sweeps.protocols) that adds seeds to each combination of the other swept values.

    Raises:
        ConfigError: for a width that is none, and limits that leave nothing to do.
    """

    adaptive = True

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str],
        config: dict[str, Any],
        *,
        params: Mapping[str, Any],
        most: int = 30,
        zip: Any = None,  # noqa: A002
        trials_file: str | None = None,
    ) -> None:
        text = str(params.get("seed"))
        asked = UNTIL.fullmatch(text)
        match = SIZE.fullmatch(asked[1].strip()) if asked else None
        if match is None or float(match[1]) <= 0:
            what = "until(HALF) takes half the width of the interval: 0.005 in the unit of the metric, or 0.5% of its mean"
            raise ConfigError([Problem(f"seed={text}", what)])
        if most < LOOKS[0]:
            raise ConfigError([Problem(f"hydra.sweeper.most={most}", f"must be at least {LOOKS[0]} seeds")])
        words = [word for word in overrides if key_of(word) != "seed"]
        self.width, self.relative = float(match[1]) / (100 if match[2] else 1), bool(match[2])
        self.metric, self.first_seed = str(config["monitor"]["metric"]), int(config.get("seed") or 0)
        others = {key: value for key, value in params.items() if key != "seed"}
        self.grid = Grid(folder, words, config, params=others, zip=zip, trials_file=trials_file)
        looks = (*(look for look in LOOKS if look < most), most)
        self.states = [Configuration(spec.overrides, looks) for spec in iter(self.grid.ask, None)]
        self.total: int | None = None
        self._trials: dict[int, Configuration] = {}

    def extremes(self) -> list[list[str]]:
        """The first job of each configuration."""
        return [[*state.words, f"seed={self.first_seed}"] for state in self.states]

    def ask(self) -> TrialSpec | None:
        """The next seed of a configuration whose next look needs it; the one with the fewest seeds first."""
        open_ = [state for state in self.states if not state.is_done and state.asked < state.target]
        if not open_:
            return None
        state = min(open_, key=lambda each: each.asked)
        number = len(self._trials)
        self._trials[number] = state
        seed = self.first_seed + state.asked
        state.asked += 1
        return TrialSpec(number, [*state.words, f"seed={seed}"])

    def tell(self, trial: TrialSpec, outcome: TrialResult) -> None:
        """Look at the interval when all seeds up to the look have ended; a failed one has no value."""
        state = self._trials[trial.number]
        state.ended += 1
        value = outcome.metrics.get(self.metric, math.nan)
        if not outcome.code and math.isfinite(value):
            state.values.append(value)
        if state.ended < state.target:
            return
        # where all seeds fail, more of them will
        state.is_done = self._is_narrow(state) or state.target == state.looks[-1] or not state.values
        state.look = min(state.look + 1, len(state.looks) - 1)

    def _is_narrow(self, state: Configuration) -> bool:
        wanted = self.width * (abs(statistics.fmean(state.values)) if self.relative and state.values else 1.0)
        return len(state.values) >= LOOKS[0] and state.half_width <= wanted

    @property
    def end_reason(self) -> str:
        """The mean of each configuration, its interval, and whether that is as narrow as asked."""
        return "\n".join(map(self._line, self.states))

    def _line(self, state: Configuration) -> str:
        name = " ".join(word for word in state.words if word in self.grid_words) or "seeds"
        if math.isnan(state.half_width):
            return f"{name}: no interval; {len(state.values)} seeds finished, without spread"
        reached = "" if self._is_narrow(state) else "; wider than asked, at the limit of hydra.sweeper.most"
        return (
            f"{name}: {self.metric} {statistics.fmean(state.values):.4f} +- {state.half_width:.4f} "
            f"(95 % interval over {len(state.looks)} looks, {len(state.values)} seeds){reached}"
        )

    @property
    def grid_words(self) -> set[str]:
        """The words in which the configurations differ."""
        every = [set(state.words) for state in self.states]
        return set().union(*every) - set(every[0]).intersection(*every[1:])


def expand_until(overrides: Sequence[str]) -> list[str]:
    """`seed=until(0.5%)` as the choice of this source, with its setting; other words as they are."""
    words: list[str] = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key == "seed" and UNTIL.fullmatch(value):
            words += ["hydra/sweeper=seeds", f"hydra.sweeper.params.seed='{value}'"]
        else:
            words.append(word)
    return words
