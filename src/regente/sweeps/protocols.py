"""The contracts of a sweep: a source of trials says which jobs there are, a launcher runs them.

`hydra/sweeper` names the class of the source and `hydra/launcher` that of the launcher, by their `_target_`. Both may be
classes of a user's own; no base class is needed, the methods below are. The driver makes them as

    TrialSource(folder, overrides, config, **settings)
    Launcher(folder, config, **settings)

`folder` is the directory of the sweep. `overrides` are those of the command line that are settings of jobs, with ranges
and choices as they were typed. `config` is the resolved config of the first job. `settings` are the other keys of the node
in the config; a class refuses one with a ConfigError, or by not having such a parameter. The driver uses `retries`,
`max_minutes` and `on_failure` of a launcher's node itself: they mean the same for every launcher.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from regente.jobs.job import Job

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrialSpec:
    """One job that a source asks for.

    Attributes:
        number: the source's own number, which the table shows.
        overrides: the settings of the job, as on a command line; each has one value.
        env: variables for the environment of the job's process.
    """

    number: int
    overrides: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        code: the exit code of its job; 0 when it finished.
        metrics: of the best weights, by the names under which they were logged; empty when the code is not 0.
        pruned: whether the job ended early because its callback found it not good enough.
    """

    code: int
    metrics: dict[str, float] = field(default_factory=dict)
    pruned: bool = False


@runtime_checkable
class TrialSource(Protocol):
    """Where the trials of a sweep come from.

    Attributes:
        total: how many trials there are, those of earlier sessions included; None when that is open.
        adaptive: a class attribute. True: results decide what comes next, so trials start as they are asked for.
            False: all trials are asked for and checked before the first job starts, and results change nothing.
    """

    total: int | None
    adaptive: bool

    def ask(self) -> TrialSpec | None:
        """The next trial.

        None means: none now. While jobs run, the driver asks again after each end; when none runs, the sweep ends.
        """

    def tell(self, trial: TrialSpec, outcome: TrialResult) -> None:
        """How a trial ended. For a job that an earlier session finished, this is called at once."""


@runtime_checkable
class SearchSource(TrialSource, Protocol):
    """What a search may offer beyond `ask` and `tell`; the driver uses each of the three where a source has it.

    Attributes:
        end_reason: a line for the user when `ask` gives no more trials before `total` is reached; else empty.
    """

    end_reason: str

    def extremes(self) -> Iterable[list[str]]:
        """Overrides of configs to check before the first job starts: each choice, and both ends of each interval."""

    def figures(self) -> "dict[str, Figure]":
        """Figures by name, recorded in the sweep's own run at its end."""


@runtime_checkable
class Launcher(Protocol):
    """Where jobs run: each in a process of its own, `python -m regente.sweeps.slot JOB_DIR`.

    That command starts the job's ranks and writes its output to files in the job's directory.

    Attributes:
        slots: how many jobs may run at once; the driver reads it again each time.
    """

    slots: int

    def submit(self, job: Job, config: dict[str, Any], env: dict[str, str]) -> None:
        """Start a job, or put it in line; returns at once.

        `config` is the job's resolved config. `env` is added to the driver's environment.
        """

    def poll(self, timeout: float) -> list[tuple[Job, int]]:
        """The jobs that have ended since the last call, with exit codes; waits at most `timeout` seconds for one.

        The code of a process that a signal ended is 128 + the signal's number.
        """

    def stop(self, job: Job | None) -> None:
        """Ask a job, or all jobs, to save and end; returns at once. A second call ends them without saving."""

    def close(self) -> None:
        """End what still runs and release everything."""
