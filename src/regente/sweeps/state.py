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
  trials.jsonl               the trials of a search: see trial_storage.py
  slurm/                     the files of submitit, with hydra/launcher=slurm
"""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from regente.errors import RegenteError
from regente.jobs.job import PROCESS, read_json, write_json
from regente.jobs.process_identity import HEARTBEAT, LEASE, ProcessIdentity, has_heartbeat, process_identity


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

    def started(self) -> "JobState":
        """The same job, running and driven by this process; an interrupted job continues in its directory."""
        attempt = self.attempt + 1
        directory = f"{self.id}-{attempt}" if self.state == "done" else self.directory or self.id
        return JobState(
            self.id, self.overrides, "running", attempt, directory, asdict(process_identity(os.getpid()))
        )

    def done(self, sweep: Path, metric: str) -> "JobState | None":
        """The same job with the result in its directory; None if there is none."""
        result = read_json(sweep / self.directory / "result.json")
        if not result:
            return None
        value, pruned = result["metrics"].get(metric), bool(result.get("pruned"))
        return replace(self, state="done", code=0, value=value, pruned=pruned, seconds=result["seconds"])


class SweepFolder:
    """The directory of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(path / ".driver.lock", timeout=0)
        self._ended = threading.Event()

    def load(self) -> dict[str, JobState]:
        """The states of all jobs that were ever started, by identity."""
        files = sorted((self.path / "states").glob("*.json"))
        states = [JobState(**content) for file in files if (content := read_json(file))]
        return {state.id: state for state in states}

    def save(self, state: JobState) -> JobState:
        """Write the state of a job."""
        file = self.path / "states" / f"{state.id}.json"
        file.parent.mkdir(exist_ok=True)
        write_json(file, asdict(state))
        return state

    def queue(self) -> dict[str, Any]:
        """The latest command line: experiment, overrides (without secrets), swept, monitor, total, jobs (identity, overrides)."""
        return read_json(self.path / "queue.json")

    def write_queue(self, **content: Any) -> None:
        """Write the command line and its jobs."""
        write_json(self.path / "queue.json", content)

    def driver(self) -> ProcessIdentity | None:
        """The process that runs the sweep, or ran it last."""
        content = read_json(self.path / "driver.json")
        return ProcessIdentity(**content["process"]) if content else None

    def driven(self) -> bool | None:
        """Whether a process drives it now; None if that process is on another host, which cannot be seen from here."""
        content = read_json(self.path / "driver.json")
        return content["beat"] >= 0 and ProcessIdentity(**content["process"]).alive() if content else False

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
        before = read_json(self.path / "driver.json")
        if before and before["beat"] >= 0 and ProcessIdentity(**before["process"]).alive() is None:
            time.sleep(LEASE)
            if read_json(self.path / "driver.json") != before:
                self.lock.release()
                raise RegenteError(self._taken(ProcessIdentity(**before["process"])))
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
    driver = ProcessIdentity(**state.driver) if state.driver else None
    end = time.monotonic() + 1.0  # for a process that was being started when its driver ended
    while driver and not (job / PROCESS).is_file() and time.monotonic() < end:
        time.sleep(0.05)
    if content := read_json(job / PROCESS):
        process, end = ProcessIdentity(**content), time.monotonic() + grace
        while process.alive() and time.monotonic() < end:
            time.sleep(0.05)
        if process.alive():
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        elsewhere = process.alive() is None and not (job / "result.json").is_file()
        if elsewhere and has_heartbeat(job / PROCESS):
            return state
    return state.done(folder.path, metric) or replace(state, state="killed", reason="its driver was killed")
