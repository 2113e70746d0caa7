"""`hydra/launcher=local`: jobs as processes of this machine, one in each slot."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regente.errors import ConfigError, MachineError, Problem
from regente.jobs.hardware import all_devices, cores, ranks_here, ranks_without_torch, threads_each
from regente.jobs.job import TRIAL, Job
from regente.sweeps.fork_server import ForkServer
from regente.sweeps.identity import targets, users_files
from regente.sweeps.slot import exit_code, job_environment, send_signal, start_in_slot
from regente.training.launch import OUTER_LAUNCHER

POLL_SECONDS = 0.05  # between checks of processes that were not forked


@dataclass(frozen=True)
class Slot:
    """Room for one job: its GPUs, none for a job on the CPU."""

    gpus: tuple[str, ...] = ()


class Local:
    """A Launcher: one process of this machine for each job. A fork server saves a job the import of torch.

    Args:
        jobs: how many at once; null: one for each GPU or share of one, else one for each core (or rank).
        gpus_per_job: null: as many as `trainer.devices` says.
        jobs_per_gpu: how many jobs share a GPU.
        fork_server: false: each job is a new process, which imports everything.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        jobs: int | None = None,
        gpus_per_job: int | None = None,
        jobs_per_gpu: int = 1,
        fork_server: bool = True,
    ) -> None:
        for name, value in (("jobs", jobs), ("gpus_per_job", gpus_per_job), ("jobs_per_gpu", jobs_per_gpu)):
            if value is not None and value < 1:
                raise ConfigError([Problem(f"hydra.launcher.{name}={value}", "must be at least 1")])
        self.folder, self.config = folder, config
        self.free = deque(slots(config["trainer"], jobs, gpus_per_job, jobs_per_gpu))
        self.slots = len(self.free)
        self.threads = threads_each(self.slots * ranks_without_torch(config["trainer"]))
        # a fork of so many libraries is safe on Linux alone
        self.forks = fork_server and sys.platform == "linux"
        self.server: ForkServer | None = None
        self.processes: dict[Path, subprocess.Popen[bytes]] = {}  # jobs that were not forked
        self.running: dict[Path, tuple[Job, Slot]] = {}
        self.waiting: deque[tuple[Job, dict[str, str]]] = deque()
        self.stop_requests: Counter[Path] = Counter()
        self.lost: list[tuple[Path, int]] = []  # jobs that have ended without a process, with exit codes

    def submit(self, job: Job, config: dict[str, Any], env: dict[str, str]) -> None:
        """Start a job, or put it in line."""
        self.stop_requests.pop(job.path, None)  # of its attempt before
        self.waiting.append((job, env))
        self._fill()

    def poll(self, timeout: float) -> list[tuple[Job, int]]:
        """The jobs that have ended, with exit codes."""
        end = time.monotonic() + timeout
        while True:
            ended = self._ended(max(0.0, end - time.monotonic()))
            if ended or time.monotonic() >= end:
                break
        found = []
        for path, code in ended:
            job, slot = self.running.pop(path)
            self.free.append(slot)
            found.append((job, code))
        self._fill()
        return found

    def stop(self, job: Job | None) -> None:
        """Send SIGTERM, upon which jobs save and end; the second time SIGKILL."""
        if job is None:
            self.lost += [(waiting.path, 128 + signal.SIGTERM) for waiting, _ in self.waiting]
            self.running |= {waiting.path: (waiting, Slot()) for waiting, _ in self.waiting}
            self.waiting.clear()
        for path in [job.path] if job else list(self.running):
            self.stop_requests[path] += 1
            number = signal.SIGTERM if self.stop_requests[path] == 1 else signal.SIGKILL
            if process := self.processes.get(path):
                send_signal(process.pid, number)
            elif self.server:
                self.server.signal(path, number)

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes.values():
            send_signal(process.pid, signal.SIGKILL)
            process.wait()
        if self.server:
            self.server.close()

    def _fill(self) -> None:
        while self.free and self.waiting:
            job, env = self.waiting.popleft()
            slot = self.free.popleft()
            self.running[job.path] = job, slot
            self._start(job.path, self._environment(slot) | env)

    def _start(self, path: Path, env: dict[str, str]) -> None:
        if not self.forks:
            self.processes[path] = start_in_slot(path, env)
            return
        if self.server is None or not self.server.alive:
            if self.server:
                self.lost += self.server.poll(0)
            packaged = [name.rpartition(".")[0] for name in targets(self.config) if not users_files(name)]
            packaged += ["regente.sweeps.study"] * (TRIAL in env)
            self.server = ForkServer(self.folder / "fork_server.log", [*dict.fromkeys(packaged)])
        self.server.start(path, env, self.threads)

    def _environment(self, slot: Slot) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(OUTER_LAUNCHER)}
        env["OMP_NUM_THREADS"] = str(self.threads)
        if slot.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
        return job_environment(env, Path.cwd())

    def _ended(self, timeout: float) -> list[tuple[Path, int]]:
        ended, self.lost = self.lost, []
        for path, process in list(self.processes.items()):
            if (code := process.poll()) is not None:
                del self.processes[path]
                ended.append((path, exit_code(code)))
        if self.server and self.server.pids:
            return ended + self.server.poll(0.0 if ended else timeout)
        if not ended and timeout:
            time.sleep(min(timeout, POLL_SECONDS))
        return ended


def slots(
    trainer: dict[str, Any], jobs: int | None, gpus_per_job: int | None, jobs_per_gpu: int
) -> list[Slot]:
    """The slots for jobs with such a trainer: shares of GPUs where there are any that they may use, else cores.

    Raises:
        MachineError: when no job can have as many GPUs as it needs.
    """
    gpus = visible_gpus() if str(trainer.get("accelerator", "auto")) in ("auto", "gpu", "cuda") else []
    if not gpus:
        return [Slot()] * (jobs or max(1, cores() // ranks_without_torch(trainer)))
    each = gpus_per_job or (len(gpus) if all_devices(trainer) else ranks_here(trainer))
    groups = [tuple(gpus[i : i + each]) for i in range(0, len(gpus) - each + 1, each)]
    if not groups:
        raise MachineError(
            f"hydra.launcher.gpus_per_job={each}: {len(gpus)} visible ({','.join(gpus)}); "
            f"use hydra.launcher.gpus_per_job={len(gpus)} or fewer"
        )
    shared = [Slot(group) for _ in range(jobs_per_gpu) for group in groups]  # one on each GPU first
    return shared[:jobs] if jobs else shared


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, else those that nvidia-smi lists. Without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]
