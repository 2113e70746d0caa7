"""A run in six stages, one after the other. Start reading here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regente.jobs.job import Job
from regente.training.frozen import open_frozen


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    experiment: str
    overrides: Sequence[str] = ()


class SweepRequested(Exception):  # noqa: N818
    """The experiment itself asks for a sweep, with `hydra.mode: MULTIRUN`."""


@dataclass(frozen=True)
class Ended:
    """A job that has run, and its exit code."""

    job: Job
    exit_code: int


def run(start: Request | Path, *, alone: bool = True, debug: bool = False) -> Ended:
    """Train what is requested, or the frozen job in a directory, and say how it ended.

    A rank, and a job of a sweep or on a cluster, start with the directory of the job. `alone`: nothing else will run in
    this process.

    Raises:
        RegenteError: when the request is wrong or the machine lacks what it asks for; then nothing was trained.
        SweepRequested: when the experiment is a sweep of many jobs.
        Stopped: after a signal, when the job ran in processes of its own.
    """
    if isinstance(start, Path):
        job, config = open_frozen(start)
    else:
        from regente.config.interpolation import JOB_DIR
        from regente.jobs.hardware import require
        from regente.training.prepare import check, compose, freeze
        from regente.training.ranks.rendezvous import receive_job, send_job

        composed = compose(start.experiment, start.overrides)  # 1 compose: words and YAML files -> one config
        if composed.multirun:
            raise SweepRequested
        config = check(composed.node)  # 2 check: every reason why it cannot run, all at once
        require(config["trainer"])
        found = receive_job(config["trainer"])  # where another machine or rank has made it
        job = found or freeze(composed, Path("runs") / start.experiment)  # 3 freeze: the job is a directory
        if found is None:
            send_job(config["trainer"], job)
        if JOB_DIR in job.config:  # only now there is one
            job, config = open_frozen(job.path)

    # a wrong request has ended above, without these imports
    from regente.training.launch import launch, leave_outer_launcher, needs_launch
    from regente.training.session import imports, session

    if needs_launch(config["trainer"], alone=alone):
        # one process for each rank, each of which calls `run(job.path)`
        return Ended(job, launch(job, config["trainer"], debug=debug))

    leave_outer_launcher(config["trainer"])
    with session(job, config, debug=debug) as current:
        with imports():
            from regente.training.build import build
            from regente.training.fit import fit, record
        current.started = time.perf_counter()
        if config["trainer"].get("find_lr") or config["trainer"].get("find_batch_size"):
            from regente.training.finders import find_settings

            find_settings(current)
        training = build(current)  # 4 build: data, task, trainer
        result = fit(training, current)  # 5 fit, then test the best weights
        record(result, training.saving, current)  # 6 record: what else goes to MLflow is sent while it trains
    return Ended(job, current.exit_code)
