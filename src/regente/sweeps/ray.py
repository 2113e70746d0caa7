"""`hydra/launcher=ray`: jobs as tasks of a Ray cluster."""

import io
import json
import os
import signal
import socket
import tarfile
import time
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regente.config.optional_packages import require
from regente.errors import ConfigError, MachineError, Problem
from regente.jobs.hardware import cores, ranks_without_torch
from regente.jobs.job import Job, write_json
from regente.sweeps.remote import environment, project_of, run_job
from regente.sweeps.slot import STDERR

CONNECT_SECONDS = 5.0
TERMINATED, KILLED = 128 + signal.SIGTERM, 128 + signal.SIGKILL


class Ray:
    """A Launcher: see regente.sweeps.protocols; its settings are those of conf/hydra/launcher/ray.yaml.

    Ray decides where and when a task runs; the driver does the retries. A task starts its job as a process of its own,
    which ends when the task's worker is killed. Ray itself reads RAY_AUTH_MODE and the like for authentication.

    Raises:
        MachineError: when Ray is not installed, or when no cluster answers.
        ConfigError: for settings that no cluster can meet.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        address: str | None = None,
        jobs: int | None = None,
        cpus_per_job: float | None = None,
        gpus_per_job: float | None = None,
        shared: bool = True,
    ) -> None:
        require("ray", "hydra/launcher=ray")
        _require_positive(jobs=jobs, cpus_per_job=cpus_per_job, gpus_per_job=gpus_per_job)
        if int(config["trainer"].get("num_nodes") or 1) > 1:
            what = "a job on Ray has one machine; give trainer.num_nodes=1"
            raise ConfigError([Problem(f"trainer.num_nodes={config['trainer']['num_nodes']}", what)])
        if not shared:
            _require_server(config)
        self.jobs, self.shared = jobs, shared
        self.ray = _connect(address, shared)
        self.needs = _needs(config["trainer"], cpus_per_job, gpus_per_job, self.ray.cluster_resources())
        if not self.slots:
            there = {
                key: value for key, value in self.ray.cluster_resources().items() if key in ("CPU", "GPU")
            }
            self.close()
            raise MachineError(f"hydra/launcher=ray: a job needs {self.needs}, the cluster has {there}")
        self.task = self.ray.remote(_task).options(
            num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"], max_retries=0
        )
        self.running: dict[Any, Job] = {}
        self.stopped: set[Path] = set()

    @property
    def slots(self) -> int:
        """How many jobs the cluster has room for; it may grow."""
        there = self.ray.cluster_resources()
        room = min(there.get(key, 0.0) / need if need else inf for key, need in self.needs.items())
        return min(int(room), self.jobs or int(room))

    def submit(self, job: Job, config: dict[str, Any], env: dict[str, str]) -> None:
        """Submit a job."""
        self.stopped.discard(job.path)  # of its attempt before
        sent = environment(job, env)
        content = None if self.shared else pack(job.path)
        self.running[self.task.remote(str(job.path), sent, content)] = job

    def poll(self, timeout: float) -> list[tuple[Job, int]]:
        """The jobs that have ended, with exit codes."""
        if not self.running:
            time.sleep(timeout)
            return []
        waiting = list(self.running)
        ready, _ = self.ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [(self.running[each], self._code(each, self.running.pop(each))) for each in ready]

    def _code(self, reference: Any, job: Job) -> int:
        """The exit code of a job whose task has ended; when its worker or machine has died, the job was killed."""
        errors = self.ray.exceptions
        try:
            code, content, place = self.ray.get(reference)
        except errors.TaskCancelledError:
            return TERMINATED
        except errors.RayTaskError as error:
            (job.path / STDERR).write_text(f"{error.cause or error}\n", encoding="utf-8")
            return 1
        except errors.RayError:
            return TERMINATED if job.path in self.stopped else KILLED
        if content is not None:
            unpack(content, job.path)
            _rename(job.path / "result.json", place, str(job.path))
        return int(code)

    def stop(self, job: Job | None) -> None:
        """Interrupt the task, which asks its job to end; the second time kill its worker, and so the job."""
        for reference, running in self.running.items():
            if job is None or running.path == job.path:
                self.ray.cancel(reference, force=running.path in self.stopped)
                self.stopped.add(running.path)

    def close(self) -> None:
        """Disconnect from the cluster; a cluster that was started here ends."""
        self.ray.shutdown()


def _task(path: str, env: dict[str, str], content: bytes | None) -> tuple[int, bytes | None, str]:
    """On a worker: the exit code of the job, and if its directory was sent, the new content and its path there."""
    if content is None:
        job = Path(path)
        if not (job / "job.json").is_file():
            raise MachineError(
                f"{path} does not exist on {os.uname().nodename}; use hydra.launcher.shared=false"
            )
        return run_job(job, project_of(job), env), None, path
    with TemporaryDirectory(prefix="regente-") as folder:
        job = Path(folder) / Path(path).name
        unpack(content, job)
        code = run_job(job, project_of(job), env)
        return code, pack(job), str(job)


def pack(folder: Path) -> bytes:
    """The files of a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Put the files into a directory."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def _rename(file: Path, before: str, now: str) -> None:
    """Replace the path of a job in a file of its directory, when it was run elsewhere."""
    if file.is_file():
        text = file.read_text(encoding="utf-8").replace(before, now)
        write_json(file, json.loads(text))


def _connect(address: str | None, shared: bool) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        os.environ.pop("RAY_ADDRESS", None)  # with it, Ray would join another cluster
        options |= {"include_dashboard": False, "num_cpus": cores(), "object_store_memory": 256 * 2**20}
    else:
        options["address"] = address
        if not shared:
            excluded = ["runs", "mlflow.db", "mlartifacts", ".venv", ".git"]
            options["runtime_env"] = {"working_dir": str(Path.cwd()), "excludes": excluded}
    if address is None or _is_loopback(address):
        # the only switch that makes Ray use the loopback address alone, on Linux too
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = f"no connection to a Ray cluster ({line}); a cluster with a token needs RAY_AUTH_MODE=token"
        raise MachineError(f"hydra.launcher.address={address}: {what}") from error
    return ray


def _is_loopback(address: str) -> bool:
    """Whether a cluster can be reached from this machine alone.

    Raises:
        MachineError: when nothing listens at the address; Ray itself would wait for minutes.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return False  # auto, local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        what = f"no Ray cluster answers ({error}); give auto, HOST:PORT of a running cluster, or null to start one here"
        raise MachineError(f"hydra.launcher.address={address}: {what}") from error
    if host not in ("127.0.0.1", "localhost", "[::1]"):
        return False
    try:  # Ray uses this machine's external address in place of localhost
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
            outward.connect(("192.0.2.1", 9))  # sends nothing; an address reserved for examples, RFC 5737
            own = outward.getsockname()[0]
        socket.create_connection((own, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return True
    return False


def _needs(
    trainer: dict[str, Any], cpus: float | None, gpus: float | None, there: dict[str, float]
) -> dict[str, float]:
    """The resources of a task."""
    wants = str(trainer.get("accelerator", "auto"))
    ranks = ranks_without_torch(trainer)
    if gpus is None:
        gpus = ranks if wants in ("gpu", "cuda") or (wants == "auto" and there.get("GPU")) else 0
    return {"CPU": cpus or ranks, "GPU": gpus}


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise ConfigError([Problem(f"hydra.launcher.{name}={value}", "must be above 0, or null")])


def _require_server(config: dict[str, Any]) -> None:
    uri = config["tracking"]["uri"]
    if uri is not None and not str(uri).startswith("http"):
        what = "other machines cannot open this file; with hydra.launcher.shared=false give a server, or tracking=none"
        raise ConfigError([Problem(f"tracking.uri={uri}", what)])
