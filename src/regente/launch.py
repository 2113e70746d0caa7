"""Start a job: in this process, or as processes of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from regente.endings import SIGNALS
from regente.errors import Stopped
from regente.job import Job
from regente.machine import cores, ranks_here
from regente.tracking.owner import owner
from regente.worker import DRIVER

# What an outer torchrun, srun or Lightning left behind would make a rank of a job that is not theirs
FOREIGN = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC_",
)
GRACE = 75.0  # seconds a job has to save and end after a signal; the ranks under an agent have fewer


def launch(job: Job, config: dict[str, Any], *, alone: bool, debug: bool = False) -> int:
    """Run a job to its end and return its exit code; `alone`: nothing else will run in this process."""
    ranks = ranks_here(config["trainer"])
    if alone and ranks == 1:
        from regente.worker import run

        return run(job.path, debug=debug)
    if ranks > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // ranks)))
    words = [str(job.path), *(["--debug"] if debug and ranks > 1 else [])]
    return _wait("regente.agent" if ranks > 1 else "regente.worker", words)


def start_program(name: str, words: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """`python -m NAME WORDS...` in a session of its own."""
    return subprocess.Popen([sys.executable, "-m", name, *words], env=env, start_new_session=True)


def _wait(program: str, words: list[str]) -> int:
    """Run a program and hand SIGINT, SIGTERM and SIGHUP on to it.

    Raises:
        Stopped: after it has ended on such a signal.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    env[DRIVER] = json.dumps(asdict(owner(os.getpid())))  # without it the job ends: see worker.follow_driver
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
