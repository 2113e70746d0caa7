"""The state of a sweep on the disk: a small file for each job, replaced as a whole, and the process that drives the sweep.

runs/EXPERIMENT/sweep-<identity>/
  config.yaml job.json ...   the sweep's own run: the parent in MLflow
  queue.json                 the jobs of the latest command line, in their order
  states/<identity>.json     the state of a job: see JobState; a job without the file is queued
  <identity>/                the job's directory; <identity>-2, -3 ... when a finished job runs again
  driver.json .driver.lock   the process that runs the sweep
  finished.json              there when the sweep's own run has ended
  fork_server.log            the output of the process that forks jobs
  jobs.csv seeds.csv         the results: see records.py
  report.html                the report on its runs: see analysis/report.py
  trials.jsonl               the trials of a search: see trial_storage.py
  slurm/                     the files of submitit, with hydra/launcher=slurm
"""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from regente.errors import ConfigError, Problem, RegenteError
from regente.jobs.job import PROCESS, QUEUE, as_dataclass, read_as, write_json
from regente.jobs.process_identity import HEARTBEAT, LEASE, ProcessIdentity, has_heartbeat, process_identity
from regente.jobs.result import read_result
from regente.jobs.runs import shown
from regente.jobs.signature import sign, why_not_own


@dataclass(frozen=True)
class JobState:
    """queued -> running -> done | failed | killed; a failed or killed job may run again."""

    id: str
    overrides: list[str]
    state: str = "queued"
    attempt: int = 0  # how often it was started
    directory: str = ""  # below the sweep's; a finished job that runs again gets another one
    driver: dict[str, Any] | None = None  # the process that started it: a ProcessIdentity
    code: int | None = None
    reason: str = ""
    value: float | None = None  # the monitored metric of the best weights
    pruned: bool = False
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether its names are names: a found file may hold any text."""
        return all(re.fullmatch(r"[\w-]*", name) for name in (self.id, self.directory)) and bool(self.id)

    def started(self) -> "JobState":
        """The same job, running and driven by this process; an interrupted job continues in its directory."""
        attempt = self.attempt + 1
        directory = f"{self.id}-{attempt}" if self.state == "done" else self.directory or self.id
        return JobState(
            self.id, self.overrides, "running", attempt, directory, asdict(process_identity(os.getpid()))
        )

    def done(self, sweep: Path, metric: str) -> "JobState | None":
        """The same job with the result in its directory; None if there is none."""
        result = read_result(sweep / self.directory)
        if not result:
            return None
        value, pruned = result.get("metrics", {}).get(metric), bool(result.get("pruned"))
        seconds = result.get("seconds", 0.0)
        return replace(self, state="done", code=0, value=value, pruned=pruned, seconds=seconds)


@dataclass(frozen=True)
class Queue:
    """The content of queue.json: the latest command line, without its secrets, and the jobs that are known."""

    experiment: str
    overrides: list[str]
    swept: list[str]
    monitor: dict[str, str]
    total: int | None
    jobs: dict[str, list[str]]  # overrides by identity, in their order
    config_dirs: list[str]  # of --config-dir, relative where they lie in the project
    pins: dict[str, str]  # what names of runs stand for
    signature: str = ""  # over the rest; see jobs/signature.py

    @property
    def why_not_own(self) -> str:
        """Why it is not known to be written by this user; empty if it is."""
        return why_not_own(asdict(replace(self, signature="")), self.signature)


@dataclass(frozen=True)
class DriverState:
    """The content of driver.json: the process that drives the sweep, and a counter that says that it is alive."""

    process: dict[str, Any]  # a ProcessIdentity
    beat: int  # -1 once it has ended

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(**self.process)


class SweepFolder:
    """The directory of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(path / ".driver.lock", timeout=0)
        self._ended = threading.Event()

    def load(self) -> dict[str, JobState]:
        """The states of all jobs that were ever started, by identity."""
        files = sorted((self.path / "states").glob("*.json"))
        states = [state for file in files if (state := read_as(JobState, file)) and state.is_sound]
        return {state.id: state for state in states}

    def save(self, state: JobState) -> JobState:
        """Write the state of a job."""
        file = self.path / "states" / f"{state.id}.json"
        file.parent.mkdir(exist_ok=True)
        write_json(file, asdict(state))
        return state

    def queue(self) -> Queue | None:
        """The latest command line; None where there is none, or it is damaged."""
        return read_as(Queue, self.path / QUEUE)

    def own_queue(self) -> Queue:
        """The latest command line, if this user has given it; else it is data, and may name any code.

        Raises:
            ConfigError: when there is none, or it is not known to be this user's.
        """
        queue = self.queue()
        if why := queue.why_not_own if queue else "it is missing or damaged":
            what = f"refused: {why}; give the sweep's command line again (regente train -m ...)"
            raise ConfigError([Problem(f"{shown(self.path)}/{QUEUE}", what)])
        assert queue is not None
        return queue

    def write_queue(self, queue: Queue) -> None:
        """Write the command line and its jobs, signed."""
        write_json(self.path / QUEUE, asdict(replace(queue, signature=sign(asdict(queue)))))

    def driver(self) -> ProcessIdentity | None:
        """The process that runs the sweep, or ran it last."""
        driver = self._driver()
        return driver.identity if driver else None

    def driven(self) -> bool | None:
        """Whether a process drives it now; None if that process is on another host, which cannot be seen from here."""
        driver = self._driver()
        return driver.beat >= 0 and driver.identity.alive() if driver else False

    def _driver(self) -> DriverState | None:
        found = read_as(DriverState, self.path / "driver.json")
        return found if found and as_dataclass(ProcessIdentity, found.process) else None

    def acquire(self) -> None:
        """Become the one driver of the sweep.

        The kernel releases the lock with its process. For a driver on another host, where the lock may not hold, the
        process writes a heartbeat.

        Raises:
            RegenteError: while another process drives it.
        """
        try:
            self.lock.acquire()
        except Timeout:
            raise RegenteError(self._taken(self.driver())) from None
        before = self._driver()
        if before and before.beat >= 0 and before.identity.alive() is None:
            time.sleep(LEASE)
            if self._driver() != before:
                self.lock.release()
                raise RegenteError(self._taken(before.identity))
        self._beat(0)
        threading.Thread(target=self._beats, daemon=True).start()

    def release(self) -> None:
        """End being its driver."""
        self._ended.set()
        self._beat(-1)
        self.lock.release()

    def _taken(self, by: ProcessIdentity | None) -> str:
        who = f"process {by.pid} on {by.host}" if by else "another process"
        return (
            f"{self.path}: {who} runs this sweep; wait for it, or end it: regente sweep stop {self.path.name}"
        )

    def _beats(self) -> None:
        number = 0
        while not self._ended.wait(HEARTBEAT):
            number += 1
            self._beat(number)

    def _beat(self, number: int) -> None:
        with suppress(OSError):  # a full disk must not end the sweep
            write_json(
                self.path / "driver.json", {"process": asdict(process_identity(os.getpid())), "beat": number}
            )


def reconcile(folder: SweepFolder, metric: str, grace: float) -> None:
    """Write the true state of the jobs that an earlier driver left as running."""
    running = [state for state in folder.load().values() if state.state == "running"]
    with ThreadPoolExecutor(max(1, len(running))) as pool:
        for state in pool.map(lambda state: _true_state(folder, state, metric, grace), running):
            folder.save(state)


def _true_state(folder: SweepFolder, state: JobState, metric: str, grace: float) -> JobState:
    """Done if it has a result, else killed; still running if it is on another host and its heartbeat goes on.

    A process of the job on this host is about to end, since its driver has ended: it gets `grace` seconds for that.
    """
    job = folder.path / state.directory
    driver = as_dataclass(ProcessIdentity, state.driver)
    end = time.monotonic() + 1.0  # for a process that was being started when its driver ended
    while driver and not (job / PROCESS).is_file() and time.monotonic() < end:
        time.sleep(0.05)
    if process := read_as(ProcessIdentity, job / PROCESS):
        end = time.monotonic() + grace
        while process.alive() and time.monotonic() < end:
            time.sleep(0.05)
        if process.alive():
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        elsewhere = process.alive() is None and not (job / "result.json").is_file()
        if elsewhere and has_heartbeat(job / PROCESS):
            return state
    return state.done(folder.path, metric) or replace(state, state="killed", reason="its driver was killed")
