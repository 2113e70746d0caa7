"""Start a job in processes of its own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from regente.errors import Stopped
from regente.jobs.driver import job_environment
from regente.jobs.exit_status import ExitStatus, exit_code, say
from regente.jobs.hardware import ranks_here, threads_each, world_size
from regente.jobs.job import Job
from regente.jobs.signals import SIGNALS
from regente.jobs.trust import handed_over
from regente.training.ranks.rank import forget_exits
from regente.training.ranks.rendezvous import ENDPOINT, endpoint, is_rank, rendezvous

# Variables of an outer torchrun, srun or Lightning: with them a job that is not theirs would start as one of their ranks
OUTER_LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC_",
    "SLURM_NTASKS",  # without it Lightning ignores the other variables of Slurm
)
GRACE = 75.0  # seconds a job has to save and end after a signal; the ranks under an agent have fewer


def needs_launch(trainer: dict[str, Any], *, alone: bool = True) -> bool:
    """Whether a job takes processes of its own; `alone`: nothing else will run in this process."""
    return not is_rank(trainer) and (world_size(trainer) > 1 or not alone)


def leave_outer_launcher(trainer: dict[str, Any]) -> None:
    """Forget what an outer torchrun or srun says, in a process that is not one of the ranks of its job."""
    if not is_rank(trainer):
        for key in [key for key in os.environ if key.startswith(OUTER_LAUNCHER)]:
            del os.environ[key]


def launch(job: Job, trainer: dict[str, Any], *, debug: bool = False) -> int:
    """Run a job in processes of its own and return its exit code: one worker, or an agent that starts the ranks.

    Raises:
        Stopped: after a signal, once the job has ended.
    """
    if world_size(trainer) == 1:
        return _wait("regente.training.worker", [str(job.path)], {**os.environ, **handed_over(job)})
    where = endpoint(trainer)
    threads = {"OMP_NUM_THREADS": str(threads_each(ranks_here(trainer)))}
    env = {**os.environ, **threads, **handed_over(job), **({ENDPOINT: where} if where else {})}
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
    process = start_program(program, words, job_environment(env, Path.cwd()))
    received: list[int] = []
    too_long = threading.Timer(GRACE, _end_session, [process])
    too_long.daemon = True

    def forward(number: int, frame: FrameType | None) -> None:
        if not received:
            too_long.start()
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        too_long.cancel()
        _end_session(process)  # what is left of it
    if received:  # the signal was for this process too: no other job is started
        raise Stopped(received[0])
    if code < 0:  # it could say nothing itself
        what = f"its process was killed by {signal.Signals(-code).name}; the machine may be out of memory"
        say(ExitStatus("KILLED", exit_code(code), f"{words[0]}: {what}; regente resume continues the run"))
    return exit_code(code)


def _end_session(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
