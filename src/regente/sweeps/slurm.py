"""`hydra/launcher=slurm`: jobs of a Slurm cluster, submitted with submitit; its local executor needs no cluster."""

import math
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regente.config.optional_packages import require
from regente.errors import ConfigError, MachineError, Problem
from regente.jobs.hardware import ranks_without_torch
from regente.jobs.job import Job, read_json, write_json
from regente.jobs.process_identity import ProcessIdentity, process_identity
from regente.sweeps.remote import POLL_SECONDS, environment, project_of, run_job

MARGIN = 15.0  # seconds until the shared file system shows the files of a job that has ended
EXIT, STOP = (
    "exit.json",
    "stop.json",
)  # in the job's directory: its exit code, and how often it was asked to stop
TERMINATED, KILLED = 128 + signal.SIGTERM, 128 + signal.SIGKILL


class Slurm:
    """A Launcher: see regente.sweeps.protocols; its settings are those of conf/hydra/launcher/slurm.yaml.

    Slurm decides where and when a job runs; the driver does the retries. When the driver is killed, a job on the driver's
    own machine ends too. A job on another machine runs to its end, and a later session uses its result.

    Raises:
        MachineError: when submitit is not installed, or where there is no Slurm.
        ConfigError: for settings that submitit or Slurm refuse.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        cluster: str = "slurm",
        jobs: int = 16,
        minutes: float = 240,
        partition: str | None = None,
        cpus_per_job: int | None = None,
        gpus_per_job: int | None = None,
        memory_gb: float | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        require("submitit", "hydra/launcher=slurm")
        if cluster not in ("slurm", "local"):
            what = "no such cluster; there is: slurm, local"
            raise ConfigError([Problem(f"hydra.launcher.cluster={cluster}", what)])
        for name, value in (("jobs", jobs), ("minutes", minutes), ("cpus_per_job", cpus_per_job)):
            if value is not None and value <= 0:
                raise ConfigError([Problem(f"hydra.launcher.{name}={value}", "must be above 0")])
        self.machines = int(config["trainer"].get("num_nodes") or 1)
        if self.machines > 1 and cluster == "local":
            what = "this machine is one; give hydra.launcher.cluster=slurm or trainer.num_nodes=1"
            raise ConfigError([Problem(f"trainer.num_nodes={self.machines}", what)])
        self.slots, self.remote = jobs, cluster == "slurm"
        self.driver = asdict(process_identity(os.getpid()))
        self.executor = _executor(folder, cluster)
        trainer = config["trainer"]
        ranks = ranks_without_torch(trainer)
        gpus = (
            ranks if gpus_per_job is None and trainer.get("accelerator") in ("gpu", "cuda") else gpus_per_job
        )
        wanted = {
            "timeout_min": math.ceil(minutes),
            "nodes": self.machines,
            "tasks_per_node": 1,
            "cpus_per_task": cpus_per_job or ranks,
            "gpus_per_node": gpus,
            "mem_gb": memory_gb,
            "slurm_partition": partition,
            **(parameters or {}),
        }
        try:
            self.executor.update_parameters(**{k: v for k, v in wanted.items() if v is not None})
        except (NameError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError([Problem("hydra.launcher.parameters", str(error).splitlines()[0])]) from error
        self.running: dict[Path, tuple[Job, Any]] = {}
        self.gone: dict[Path, float] = {}  # since when jobs without an exit code have ended for Slurm

    def submit(self, job: Job, config: dict[str, Any], env: dict[str, str]) -> None:
        """Submit a job."""
        sent = environment(job, env)
        for name in (EXIT, STOP):
            (job.path / name).unlink(missing_ok=True)
        from submitit.core.utils import FailedJobError

        try:
            handed = self.executor.submit(_task, str(job.path), sent, self.driver, self.machines)
        except FailedJobError as error:
            what = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise MachineError(f"hydra/launcher=slurm: Slurm refuses the job: {what}") from error
        self.running[job.path] = job, handed

    def poll(self, timeout: float) -> list[tuple[Job, int]]:
        """The jobs that have ended, with exit codes."""
        end = time.monotonic() + timeout
        while True:
            codes = {path: self._code(path, handed) for path, (_, handed) in self.running.items()}
            ended = [(self.running[path][0], code) for path, code in codes.items() if code is not None]
            if ended or time.monotonic() >= end:
                break
            time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        for job, _ in ended:
            _forget(self.running.pop(job.path)[1])
            self.gone.pop(job.path, None)
        return ended

    def _code(self, path: Path, handed: Any) -> int | None:
        """The exit code of a job; None while it runs; a job that has ended without one was killed."""
        if found := read_json(path / EXIT):
            return int(found["code"])
        if not handed.done():
            return None
        since = self.gone.setdefault(path, time.monotonic())
        if time.monotonic() - since < (MARGIN if self.remote else 1.0):
            return None
        return TERMINATED if (path / STOP).is_file() else KILLED

    def stop(self, job: Job | None) -> None:
        """Ask a job to save and end, the second time to end at once; a pending job is cancelled."""
        for path, (_, handed) in self.running.items():
            if job is None or path == job.path:
                write_json(path / STOP, {"requests": _stop_requests(path) + 1})
                if self.remote and handed.state == "PENDING":
                    handed.cancel(check=False)

    def close(self) -> None:
        """End all jobs."""
        for path, (_, handed) in self.running.items():
            write_json(path / STOP, {"requests": 2})
            if self.remote:
                handed.cancel(check=False)
            _forget(handed)


def _forget(handed: Any) -> None:
    """Remove the file that was submitted: it holds the environment with its secrets."""
    handed.paths.submitted_pickle.unlink(missing_ok=True)


def _task(path: str, env: dict[str, str], driver: dict[str, Any], machines: int) -> None:
    """On each machine of the job: run it; the first machine writes the exit code."""
    job = Path(path)
    first = os.environ.get("SLURM_PROCID", "0") == "0"
    code = run_job(
        job,
        project_of(job),
        env,
        stop_requests=lambda: _stop_requests(job),
        driver=ProcessIdentity(**driver),
        machines=machines,
    )
    if first:
        write_json(job / EXIT, {"code": code})


def _stop_requests(path: Path) -> int:
    return int(read_json(path / STOP).get("requests", 0))


def _executor(folder: Path, cluster: str) -> Any:
    import submitit

    try:
        return submitit.AutoExecutor(folder=folder.resolve() / "slurm", cluster=cluster)
    except RuntimeError as error:
        what = f"{str(error).splitlines()[0]}; start on a machine that has sbatch, or try cluster=local"
        raise MachineError(f"hydra.launcher.cluster={cluster}: {what}") from error
