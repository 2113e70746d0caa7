"""`hydra/launcher=slurm`: jobs of a Slurm cluster, handed over by submitit; its local executor needs no cluster."""

import json
import math
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regente.config.optional_packages import require
from regente.errors import ConfigError, MachineError, Problem
from regente.jobs.hardware import ranks_here
from regente.jobs.job import Job, write_json
from regente.jobs.process_identity import ProcessIdentity, process_identity
from regente.sweeps.remote import environment, project_of, run_job

LOOK = 0.2  # seconds between looks
MARGIN = 15.0  # seconds that a result may take to show up on the shared file system after Slurm says that a job is over
CODE, STOP = "exit.json", "stop.json"  # in the job's directory
TERMINATED, KILLED = 128 + signal.SIGTERM, 128 + signal.SIGKILL


class Slurm:
    """A Launcher: see regente.sweeps.protocols; its settings are those of conf/hydra/launcher/slurm.yaml.

    Slurm says where and when a job runs; retries are the driver's. A job that runs when its driver dies ends too where
    it can see that, on the driver's own machine; elsewhere it goes on to its end, and a later session finds its result.

    Raises:
        MachineError: without the extra, or where there is no Slurm.
        ConfigError: for settings that submitit or Slurm do not know.
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
        require("submitit", "slurm", "hydra/launcher=slurm")
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
        self.slots, self.far = jobs, cluster == "slurm"
        self.driver = asdict(process_identity(os.getpid()))
        self.executor = _executor(folder, cluster)
        trainer = config["trainer"]
        ranks = 1 if trainer.get("devices", 1) in ("auto", -1, "-1") else ranks_here(trainer)
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
        self.over: dict[Path, float] = {}  # jobs that are over for Slurm and have left no word, since when

    def submit(self, job: Job, config: dict[str, Any], env: dict[str, str]) -> None:
        """Hand a job over."""
        sent = environment(job, env)
        for name in (CODE, STOP):
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
            time.sleep(min(LOOK, max(0.0, end - time.monotonic())))
        for job, _ in ended:
            _forget(self.running.pop(job.path)[1])
            self.over.pop(job.path, None)
        return ended

    def _code(self, path: Path, handed: Any) -> int | None:
        """The exit code of a job; one that is over and has left none was killed."""
        with suppress(OSError, ValueError, KeyError):
            return int(json.loads((path / CODE).read_text(encoding="utf-8"))["code"])
        if not handed.done():
            return None
        since = self.over.setdefault(path, time.monotonic())
        if time.monotonic() - since < (MARGIN if self.far else 1.0):
            return None
        return TERMINATED if (path / STOP).is_file() else KILLED

    def stop(self, job: Job | None) -> None:
        """Leave word for a job to save and end, the second time to end at once; one that waits in line is taken out."""
        for path, (_, handed) in self.running.items():
            if job is None or path == job.path:
                told = _told(path) + 1
                write_json(path / STOP, {"told": told})
                if self.far and handed.state == "PENDING":
                    handed.cancel(check=False)

    def close(self) -> None:
        """Take back what still waits or runs."""
        for path, (_, handed) in self.running.items():
            write_json(path / STOP, {"told": 2})
            if self.far:
                handed.cancel(check=False)
            _forget(handed)


def _forget(handed: Any) -> None:
    """Remove what was handed over, the environment with its secrets in it."""
    handed.paths.submitted_pickle.unlink(missing_ok=True)


def _task(path: str, env: dict[str, str], driver: dict[str, Any], machines: int) -> None:
    """On each machine of the job: run it; the first one leaves its exit code in its directory."""
    job = Path(path)
    first = os.environ.get("SLURM_PROCID", "0") == "0"
    code = run_job(
        job,
        project_of(job),
        env,
        told=lambda: _told(job),
        driver=ProcessIdentity(**driver),
        machines=machines,
    )
    if first:
        write_json(job / CODE, {"code": code})


def _told(path: Path) -> int:
    """How often a job was told to end."""
    file = path / STOP
    return int(json.loads(file.read_text(encoding="utf-8"))["told"]) if file.is_file() else 0


def _executor(folder: Path, cluster: str) -> Any:
    import submitit

    try:
        return submitit.AutoExecutor(folder=folder.resolve() / "slurm", cluster=cluster)
    except RuntimeError as error:
        raise MachineError(
            f"hydra.launcher.cluster={cluster}: {str(error).splitlines()[0]}; start where sbatch is, or try cluster=local"
        ) from error
