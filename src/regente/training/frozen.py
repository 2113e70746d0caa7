"""Opens a frozen job: its config, and the variables of its environment. Nothing here imports Hydra."""

import os
from pathlib import Path
from typing import Any

from regente.config.environment import from_environment
from regente.config.interpolation import JOB_DIR, resolve
from regente.jobs.job import Job, open_job


def open_frozen(path: Path) -> tuple[Job, dict[str, Any]]:
    """The job in a directory and its resolved config; the job's environment is set from here on.

    Raises:
        RegenteError: when the directory is not a job's.
    """
    job = open_job(path)
    set_environment({JOB_DIR: str(job.path), **job.env})
    return job, resolve(job.config)


def set_environment(env: dict[str, str], secrets: dict[str, str] | None = None) -> None:
    """Set variables of this process; the values of `env` may refer to variables, those of `secrets` included."""
    os.environ.update(secrets or {})
    os.environ.update({name: from_environment(value) for name, value in env.items()})
