"""What can go wrong, and the exit code that says so.

RegenteError            1    the user's own code raised
├── ConfigError         2    the request is wrong
├── MachineError        3    this machine cannot run it
├── DataError           4    the data is missing or broken
├── CheckpointError     5    weights are missing, damaged or of another model
├── TrackingError       6    the tracking store refuses
└── DivergedError       7    the training ran into NaN or infinity

A signal ends the run as `Stopped`, with 128 + its number: 130, 143, 129, 138.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass


class RegenteError(Exception):
    """The message says where, what is wrong and what would be right; it is shown without a traceback."""

    exit_code = 1


def first_of(items: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first items and how many more there are: `a, b, and 3 more`."""
    rest = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return separator.join([*items[:most], *rest])


@dataclass(frozen=True)
class Problem:
    """One reason why a config cannot run, e.g. `trainer.max_epoch` / `no such setting; did you mean ...?`."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class ConfigError(RegenteError):
    """All problems of a request, together."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = [Problem("", problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))


class MachineError(RegenteError):
    """A device, a driver or an optional package is not there."""

    exit_code = 3


class DataError(RegenteError):
    """Files are missing, damaged or not what the config declares."""

    exit_code = 4


class CheckpointError(RegenteError):
    """Weights cannot be loaded."""

    exit_code = 5


class TrackingError(RegenteError):
    """MLflow's store cannot be opened or written."""

    exit_code = 6


class DivergedError(RegenteError):
    """The loss is no longer a finite number."""

    exit_code = 7


class Stopped(BaseException):
    """A signal asked the run to end; like KeyboardInterrupt it passes through `except Exception`."""

    def __init__(self, number: int, *, agreed: bool = False) -> None:
        self.agreed = agreed  # by all ranks: none was lost
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number
        super().__init__(self.name)
