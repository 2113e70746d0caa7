"""Before many jobs of a sweep: a few real batches of each kind of job, for what no config tells.

That is whether the monitored metric is logged at all, by a task of the user's own, how long a job takes and how much
memory. What makes a kind is the choice of parts and of the trainer's settings; other swept values do not.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from regente.errors import ConfigError, Problem
from regente.jobs.job import Job, read_json
from regente.sweeps.local import Local
from regente.sweeps.plan import Plan
from regente.sweeps.protocols import Launcher, TrialSpec
from regente.sweeps.slot import last_line
from regente.sweeps.state import SweepFolder
from regente.training.prepare import freeze

WORTH = 4  # jobs for each kind, below which a probe would cost more than it tells
SHORT = [
    *("trainer.max_epochs=1", "trainer.limit_train_batches=16", "trainer.limit_val_batches=1"),
    *("trainer.limit_test_batches=1", "tracking.uri=null"),
    *("trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.0", "trainer.max_steps=-1"),
]
DECIDES = re.compile(r"(trainer|monitor)\.|[\w.]*_target_")  # of the values that words set


@dataclass(frozen=True)
class Probed:
    """What the probes have found of jobs that are to run."""

    seconds: float  # of one job, on average
    megabytes: float  # of the largest, at its peak

    def line(self, jobs: int, slots: int) -> str:
        """What to say before the first job starts."""
        whole = self.seconds * -(-jobs // slots)
        time = f"{self.seconds:.0f} s" if self.seconds < 90 else f"{self.seconds / 60:.0f} min"
        total = f"{whole:.0f} s" if whole < 90 else f"{whole / 60:.0f} min"
        return f"tried a few batches: about {time} and {self.megabytes:.0f} MB a job; {total} in all, {slots} at once"


def worthwhile(launcher: Launcher, kinds: int, jobs: int) -> bool:
    """Whether probes are cheap, forked on this machine, and there is enough to gain from them."""
    return isinstance(launcher, Local) and launcher.warm and jobs >= WORTH * kinds


def kinds(plan: Plan, jobs: Iterable[TrialSpec]) -> list[tuple[TrialSpec, int]]:
    """A job of each kind, and how many there are of it, by the words that choose; nothing is composed."""
    found: dict[tuple[str, ...], tuple[TrialSpec, int]] = {}
    for trial in jobs:
        key = tuple(
            word for word in trial.overrides if not plan.composer.is_value(word) or DECIDES.match(word)
        )
        first, number = found.get(key, (trial, 0))
        found[key] = first, number + 1
    return list(found.values())


def probe(
    plan: Plan,
    folder: SweepFolder,
    launcher: Launcher,
    chosen: list[tuple[TrialSpec, int]],
    stopped: Callable[[], bool],
) -> Probed | None:
    """Run a few batches of each kind of job; nothing where the data does not say how much there is of it.

    `stopped`: whether a signal has asked to end.

    Raises:
        ConfigError: when a monitored metric is not among those that a job logs.
    """
    place = folder.path / "probes"
    shutil.rmtree(place, ignore_errors=True)  # of a driver that was killed
    waiting: dict[str, tuple[Job, dict[str, Any], int]] = {}
    for number, (trial, count) in enumerate(chosen):
        config = plan.composer.checked_config(trial.overrides)[1]
        composed, short = plan.composer.checked_config([*trial.overrides, *SHORT])
        job = freeze(composed, place, str(number))
        waiting[str(job.path)] = job, config, count
        launcher.submit(job, short, trial.env)
    seconds, megabytes, problems, ended = 0.0, 0.0, [], 0
    while ended < len(waiting):
        if stopped():
            launcher.stop(None)
        for job, code in launcher.poll(1.0):
            ended += 1
            _, config, count = waiting[str(job.path)]
            result = read_json(job.path / "result.json")
            if stopped():
                continue
            if code == ConfigError.exit_code:
                problems.append(Problem("", last_line(job.path)))
            if (
                code or not result
            ):  # what else goes wrong is the job's own to say, and no reason to hold up others
                continue
            problems += _unlogged(config["monitor"]["metric"], result["metrics"])
            seconds += count * _seconds(job, config, result)
            megabytes = max(megabytes, result.get("peak_megabytes", 0.0))
    shutil.rmtree(place, ignore_errors=True)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    jobs = sum(count for _, count in chosen)
    return Probed(seconds / jobs, megabytes) if seconds else None


def _unlogged(metric: str, logged: dict[str, float]) -> list[Problem]:
    if metric.startswith("train/") or metric in logged:
        return []
    return [Problem(f"monitor.metric={metric}", f"never logged; logged: {', '.join(sorted(logged))}")]


def _seconds(job: Job, config: dict[str, Any], result: dict[str, Any]) -> float:
    """Of a whole job like this one: its start and end as they were, its epochs by the samples and the speed."""
    samples = read_json(job.path / "data.json").get("splits", {}).get("train", 0)
    epochs, speed = config["trainer"].get("max_epochs") or 1, result["samples_per_second"]
    return float(result["seconds"]) + max(0, epochs) * samples / max(speed, 1e-9) if samples else 0.0
