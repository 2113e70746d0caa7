"""Before many jobs of a sweep: a few real batches of each kind of job, for errors that no config shows.

They show whether a user's own task logs the monitored metric, how long a job takes and how much memory it needs. Jobs are
of one kind when they have the same parts and the same trainer; other swept values make no difference here.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from regente.errors import ConfigError, Problem
from regente.jobs.job import Job, read_json
from regente.jobs.result import read_result
from regente.jobs.runs import SMOKE_TEST
from regente.sweeps.local import Local
from regente.sweeps.plan import Plan
from regente.sweeps.protocols import Launcher, TrialSpec
from regente.sweeps.slot import last_line
from regente.sweeps.state import SweepFolder
from regente.training.prepare import freeze

MIN_JOBS = 4  # of each kind; for fewer jobs a smoke test costs more than it saves
SHORT = [
    *("trainer.max_epochs=1", "trainer.limit_train_batches=16", "trainer.limit_val_batches=1"),
    *("trainer.limit_test_batches=1", "tracking.uri=null"),
    *("trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.0", "trainer.max_steps=-1"),
]
KIND = re.compile(r"(trainer|monitor)\.|[\w.]*_target_")  # overrides of values that make another kind


@dataclass(frozen=True)
class Estimate:
    """What the jobs of a sweep need."""

    seconds: float  # of one job, on average
    megabytes: float  # of the largest job, at its peak

    def line(self, jobs: int, slots: int) -> str:
        """The line for the user before the first job starts."""
        whole = self.seconds * -(-jobs // slots)
        time = f"{self.seconds:.0f} s" if self.seconds < 90 else f"{self.seconds / 60:.0f} min"
        total = f"{whole:.0f} s" if whole < 90 else f"{whole / 60:.0f} min"
        return f"tried a few batches: about {time} and {self.megabytes:.0f} MB a job; {total} in all, {slots} at once"


def worth_testing(launcher: Launcher, kinds: int, jobs: int) -> bool:
    """Whether a smoke test is cheap, because jobs are forked on this machine, and there are many jobs of each kind."""
    return isinstance(launcher, Local) and launcher.forks and jobs >= MIN_JOBS * kinds


def kinds(plan: Plan, jobs: Iterable[TrialSpec]) -> list[tuple[TrialSpec, int]]:
    """A job of each kind, and how many jobs are of that kind; decided by the overrides, nothing is composed."""
    found: dict[tuple[str, ...], tuple[TrialSpec, int]] = {}
    for trial in jobs:
        key = tuple(word for word in trial.overrides if not plan.composer.is_value(word) or KIND.match(word))
        first, number = found.get(key, (trial, 0))
        found[key] = first, number + 1
    return list(found.values())


def smoke_test(
    plan: Plan,
    folder: SweepFolder,
    launcher: Launcher,
    kinds: list[tuple[TrialSpec, int]],
    stopped: Callable[[], bool],
) -> Estimate | None:
    """Run a few batches of each kind of job; None when the size of the data is not known.

    `stopped`: whether a signal has asked the sweep to end.

    Raises:
        ConfigError: when a job does not log its monitored metric.
    """
    place = folder.path / SMOKE_TEST
    shutil.rmtree(place, ignore_errors=True)  # of a driver that was killed
    waiting: dict[str, tuple[dict[str, Any], int]] = {}
    for number, (trial, count) in enumerate(kinds):
        config = plan.composer.checked_config(trial.overrides)[1]
        composed, short = plan.composer.checked_config([*trial.overrides, *SHORT])
        job = freeze(composed, place, str(number))
        waiting[str(job.path)] = config, count
        launcher.submit(job, short, trial.env)
    seconds, megabytes, problems, jobs = 0.0, 0.0, [], sum(count for _, count in kinds)
    while waiting:
        if stopped():
            launcher.stop(None)
        for job, code in launcher.poll(1.0):
            config, count = waiting.pop(str(job.path))
            result = read_result(job.path)
            if stopped():
                continue
            if code == ConfigError.exit_code:
                problems.append(Problem("", last_line(job.path)))
            if code or not result:  # the job itself will report other failures; they do not hold up the sweep
                continue
            problems += _unlogged(config["monitor"]["metric"], result["metrics"])
            seconds += count * _seconds(job, config, result)
            megabytes = max(megabytes, result.get("peak_megabytes", 0.0))
    shutil.rmtree(place, ignore_errors=True)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Estimate(seconds / jobs, megabytes) if seconds else None


def _unlogged(metric: str, logged: dict[str, float]) -> list[Problem]:
    if metric.startswith("train/") or metric in logged:
        return []
    return [Problem(f"monitor.metric={metric}", f"never logged; logged: {', '.join(sorted(logged))}")]


def _seconds(job: Job, config: dict[str, Any], result: dict[str, Any]) -> float:
    """Of a whole job like this one: the time of the short job, and that of all its samples at the measured speed."""
    samples = read_json(job.path / "data.json").get("splits", {}).get("train", 0)
    epochs, speed = config["trainer"].get("max_epochs") or 1, result["samples_per_second"]
    return float(result["seconds"]) + max(0, epochs) * samples / max(speed, 1e-9) if samples else 0.0
