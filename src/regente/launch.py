"""Start a job: in this process, or as processes of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

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
GRACE = 30.0  # seconds a job has to save and end after a signal


def launch(job: Job, config: dict[str, Any], *, alone: bool, debug: bool = False) -> int:
    """Run a job to its end and return its exit code; `alone`: nothing else will run in this process."""
    ranks = ranks_here(config["trainer"])
    if alone and ranks == 1:
        from regente.worker import run

        return run(job.path, debug=debug)
    worker = ["-m", "regente.worker", str(job.path)]
    if ranks > 1:
        worker = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *worker]
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // ranks)))  # torchrun would say 1
    return _wait([sys.executable, *worker])


def _wait(command: list[str]) -> int:
    """Run a command in a session of its own and hand SIGINT, SIGTERM and SIGHUP on to it.

    Raises:
        Stopped: after it has ended on such a signal.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    env[DRIVER] = json.dumps(asdict(owner(os.getpid())))  # without it the job ends: see worker.follow_driver
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(Path.cwd())]))
    process = subprocess.Popen(command, env=env, start_new_session=True)

    told: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        told.append(number)
        process.send_signal(number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.kill()
    if told:  # what asked the job to end asked us too: no other job is started
        raise Stopped(told[0])
    return code if code >= 0 else 128 - code
