"""A job on a machine of a cluster: a process of its own, which ends with the driver's task there."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from regente.config.environment import env_references, from_environment
from regente.jobs.driver import job_environment
from regente.jobs.exit_status import exit_code
from regente.jobs.job import Job, read_json
from regente.jobs.process_identity import ProcessIdentity
from regente.jobs.trust import handed_over
from regente.sweeps.slot import send_signal, start_in_slot
from regente.training.launch import GRACE, OUTER_LAUNCHER

# The variables of the driver's environment that jobs on other machines get, by their first letters
FORWARDED = ("MLFLOW_", "REGENTE_", "OMP_", "MKL_", "HYDRA_", "AWS_", "HF_", "XDG_CACHE_HOME")
POLL_SECONDS = 0.2


def environment(job: Job, more: dict[str, str]) -> dict[str, str]:
    """What a job on another machine needs of the driver's environment; `more` overrules it.

    The worker processes of a cluster were started before, so they do not have these variables.
    """
    own = {key: value for key, value in os.environ.items() if key.startswith(FORWARDED)}
    named = env_references("\n".join([job.config, *job.env.values()]))
    set_by_job = {name: from_environment(value) for name, value in job.env.items()}
    return own | named | set_by_job | handed_over(job) | more


def run_job(
    path: Path,
    project: Path,
    env: dict[str, str],
    *,
    stop_requests: Callable[[], int] = lambda: 0,
    driver: ProcessIdentity | None = None,
    machines: int = 1,
) -> int:
    """Run the job in a directory to its end, with the user's own modules from `project`; its exit code.

    A job on several machines calls this on each of them, as srun starts it. It then keeps Slurm's variables.

    `stop_requests` says how often the job has been asked to stop; each KeyboardInterrupt is such a request too. The job
    saves and ends at the first request and is killed at the second. When its `driver` has ended, as far as this machine
    can see that, the job is asked to stop too.
    """
    outer = OUTER_LAUNCHER if machines == 1 else ()
    full = {key: value for key, value in os.environ.items() if not key.startswith(outer)} | env
    process = start_in_slot(path, job_environment(full, project), project)
    interrupts, sent, end = 0, 0, 0.0
    while process.poll() is None:
        try:
            wanted = max(stop_requests(), interrupts)
            if not wanted and driver is not None and driver.alive() is False:
                wanted = 1
            if wanted and not sent:
                sent, end = 1, time.monotonic() + GRACE
                process.send_signal(signal.SIGTERM)
            elif sent == 1 and (wanted > 1 or time.monotonic() > end):
                sent = 2
                send_signal(process.pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            interrupts += 1
    return exit_code(process.returncode)


def project_of(path: Path) -> Path:
    """The project directory of a job if this machine has it; else the working directory."""
    project = Path(read_json(path / "job.json")["project"])
    return project if project.is_dir() else Path.cwd()
