"""Start a job: in this process, or as processes of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from regente.errors import Stopped
from regente.jobs.hardware import ranks_here, threads_each, world_size
from regente.jobs.job import Job
from regente.jobs.process_identity import process_identity
from regente.jobs.signals import SIGNALS
from regente.training.ranks.rank import forget_exits, this_rank
from regente.training.ranks.rendezvous import ENDPOINT, endpoint, is_rank, rendezvous
from regente.training.worker import DRIVER

# What an outer torchrun, srun or Lightning left behind would make a rank of a job that is not theirs
OUTER_LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC_",
    "SLURM_NTASKS",  # Lightning takes the rest of Slurm's words by it
)
GRACE = 75.0  # seconds a job has to save and end after a signal; the ranks under an agent have fewer


def launch(job: Job, config: dict[str, Any], *, alone: bool, debug: bool = False) -> int:
    """Run a job to its end and return its exit code; `alone`: nothing else will run in this process."""
    trainer = config["trainer"]
    ranks, where = world_size(trainer), endpoint(trainer)
    if is_rank(trainer) or (alone and ranks == 1):
        from regente.training.worker import run

        if ranks == 1:
            for key in [key for key in os.environ if key.startswith(OUTER_LAUNCHER)]:
                del os.environ[key]
        elif (here := this_rank()).number == 0 and here.restart == 0:
            forget_exits(job)
        return run(job.path, debug=debug)
    if ranks == 1:
        return _wait("regente.training.worker", [str(job.path)], os.environ)
    threads = {"OMP_NUM_THREADS": str(threads_each(ranks_here(trainer)))}
    env = {**os.environ, **threads, **({ENDPOINT: where} if where else {})}
    if not where or rendezvous(where).first:
        forget_exits(job)
    try:
        return _wait("regente.training.start_ranks", [str(job.path), *(["--debug"] if debug else [])], env)
    finally:
        if where:
            rendezvous(where).leave(int(trainer["num_nodes"]))


def start_program(name: str, words: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """`python -m NAME WORDS...` in a session of its own."""
    return subprocess.Popen([sys.executable, "-m", name, *words], env=env, start_new_session=True)


def _wait(program: str, words: list[str], environ: Mapping[str, str]) -> int:
    """Run a program and hand SIGINT, SIGTERM and SIGHUP on to it.

    Raises:
        Stopped: after it has ended on such a signal.
    """
    env = {key: value for key, value in environ.items() if not key.startswith(OUTER_LAUNCHER)}
    env[DRIVER] = json.dumps(
        asdict(process_identity(os.getpid()))
    )  # without it the job ends: see worker.follow_driver
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(Path.cwd())]))
    process = start_program(program, words, env)
    told: list[int] = []
    too_long = threading.Timer(GRACE, _end_session, [process])
    too_long.daemon = True

    def forward(number: int, frame: FrameType | None) -> None:
        if not told:
            too_long.start()
        told.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        too_long.cancel()
        _end_session(process)  # what is left of it
    if told:  # what asked the job to end asked us too: no other job is started
        raise Stopped(told[0])
    return code if code >= 0 else 128 - code


def _end_session(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
