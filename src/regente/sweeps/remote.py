"""A job on whatever machine a cluster gives it: a process of its own, which ends with its driver there too."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regente.config.environment import env_references, from_environment
from regente.jobs.driver import DRIVER
from regente.jobs.job import Job
from regente.jobs.process_identity import ProcessIdentity, process_identity
from regente.training.launch import GRACE, OUTER_LAUNCHER

SENT = (
    "MLFLOW_",
    "REGENTE_",
    "OMP_",
    "MKL_",
    "HYDRA_",
    "AWS_",
    "HF_",
    "XDG_CACHE_HOME",
)  # of the driver's environment
LOOK = 0.2  # seconds


def environment(job: Job, more: dict[str, str]) -> dict[str, str]:
    """What a job on another machine needs of the driver's environment; `more` on top.

    A machine that has been running for long knows nothing of it by itself.
    """
    own = {key: value for key, value in os.environ.items() if key.startswith(SENT)}
    named = env_references("\n".join([job.config, *job.env.values()]))
    return own | named | {name: from_environment(value) for name, value in job.env.items()} | more


def run_job(
    path: Path,
    project: Path,
    env: dict[str, str],
    *,
    told: Callable[[], int] = lambda: 0,
    driver: ProcessIdentity | None = None,
    machines: int = 1,
) -> int:
    """Run the job in a directory to its end, with the user's own modules from `project`; its exit code.

    On several machines this is called on each, as srun starts it: what Slurm says of them is kept then.

    `told` says how often the job has been asked to end, and so does each KeyboardInterrupt; the second time it is ended
    at once. Without its `driver`, as far as one can see it from here, it is asked to end too.
    """
    process = _start(path, project, env, OUTER_LAUNCHER if machines == 1 else ())
    interrupts, asked, end = 0, 0, 0.0
    while process.poll() is None:
        try:
            wanted = max(told(), interrupts)
            if not wanted and driver is not None and driver.alive() is False:
                wanted = 1
            if wanted and not asked:
                asked, end = 1, time.monotonic() + GRACE
                process.send_signal(signal.SIGTERM)
            elif asked == 1 and (wanted > 1 or time.monotonic() > end):
                asked = 2
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(LOOK)
        except KeyboardInterrupt:
            interrupts += 1
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _start(
    path: Path, project: Path, env: dict[str, str], foreign: tuple[str, ...]
) -> "subprocess.Popen[bytes]":
    full = {key: value for key, value in os.environ.items() if not key.startswith(foreign)} | env
    full[DRIVER] = json.dumps(asdict(process_identity(os.getpid())))
    full["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(project)]))
    command = [sys.executable, "-m", "regente.sweeps.slot", str(path)]
    return subprocess.Popen(command, env=full, cwd=project, start_new_session=True)


def project_of(path: Path) -> Path:
    """The project directory of a job, where this machine has it; else the working directory."""
    facts: dict[str, Any] = json.loads((path / "job.json").read_text(encoding="utf-8"))
    project = Path(facts["project"])
    return project if project.is_dir() else Path.cwd()
