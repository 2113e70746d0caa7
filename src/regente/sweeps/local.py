"""`hydra/launcher=local`: jobs as processes of this machine, one in each slot."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from regente.errors import ConfigError, Problem
from regente.jobs.driver import job_environment
from regente.jobs.exit_status import exit_code
from regente.jobs.hardware import ranks_without_torch, threads_each
from regente.jobs.job import TRIAL, Job
from regente.jobs.trust import handed_over
from regente.sweeps.fork_server import ForkServer
from regente.sweeps.gpu_slots import Slot, slots
from regente.sweeps.identity import targets, users_files
from regente.sweeps.slot import send_signal, start_in_slot
from regente.training.launch import OUTER_LAUNCHER

POLL_SECONDS = 0.05  # between checks of processes that were not forked


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

    def export_model(self, job: Job, seconds: float) -> None:
        """Export the model of a finished job in a fork of the server, which has torch; `seconds`: the longest wait."""
        if self.server is None or not self.server.alive:
            return
        from regente.tracking.logged_model import export_best

        self.server.start(job.path, self._environment(Slot()), self.threads, export_best)
        end = time.monotonic() + seconds
        while self.server.pids and time.monotonic() < end:
            self.server.poll(POLL_SECONDS)

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
            self._start(job.path, self._environment(slot) | handed_over(job) | env)

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
