"""What the driver of a sweep asks of a source of jobs and of a launcher; grids, searches and clusters are kinds of these.

A node of `hydra/sweeper` or `hydra/launcher` whose `_target_` is below `regente.sweeps` names such a class, which is made
as `TrialSource(folder, overrides, config, **settings)` or `Launcher(folder, config, **settings)`: `folder` is the directory of
the sweep, `overrides` are the words of the command line that are settings of jobs, ranges and choices included, `config`
is the first job's, resolved, and `settings` are the other keys of the node. From a launcher's node the driver takes
`retries`, `max_minutes` and `on_failure` for itself: they mean the same on every launcher.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from regente.jobs.job import Job


@dataclass(frozen=True)
class TrialSpec:
    """One job as the source wants it: its overrides, and what its process finds in the environment."""

    number: int
    overrides: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial: the exit code, and the metrics of the best weights where it was 0."""

    code: int
    metrics: dict[str, float] = field(default_factory=dict)
    pruned: bool = False  # result.json says `"pruned": true`


class TrialSource(Protocol):
    """Where the trials of a sweep come from."""

    total: int | None  # how many there will be, earlier sessions included; None where that is open
    adaptive: bool  # outcomes decide what comes next; else all trials are asked for and checked before the first starts

    def ask(self) -> TrialSpec | None:
        """The next trial; None when there is none now, and for good once nothing runs either."""

    def tell(self, trial: TrialSpec, outcome: TrialResult) -> None:
        """What became of a trial; one that an earlier session finished is told at once."""


class Launcher(Protocol):
    """Where jobs run: each as a process of its own that ends with the driver."""

    slots: int  # how many jobs at once

    def submit(self, job: Job, config: dict[str, Any], env: dict[str, str]) -> None:
        """Start a job, or put it in line; returns at once. `env` comes on top of the driver's environment."""

    def poll(self, timeout: float) -> list[tuple[Job, int]]:
        """The jobs that have ended since the last call, with exit codes; waits at most `timeout` seconds for one.

        A process that a signal ended has 128 + its number.
        """

    def stop(self, job: Job | None) -> None:
        """Ask a job, or all, to save and end; returns at once. Asked again, it ends them without saving."""

    def close(self) -> None:
        """End what still runs and give everything back."""
