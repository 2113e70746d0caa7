"""What a sweep keeps on the disk: one small file for each job, written by rename, and whose sweep it is just now.

runs/EXPERIMENT/sweep-<identity>/
  config.yaml job.json ...   the sweep's own run: the parent in MLflow
  queue.json                 the jobs of the latest command line, in their order
  states/<identity>.json     what has become of a job: see JobState; without the file it is queued
  <identity>/                the job's directory; of a job that is done again <identity>-2, -3 ...
  driver.json .driver.lock   the process that runs the sweep
"""

import os
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
    """queued -> running -> done | failed | killed; what is failed or killed may run again."""

    id: str
    overrides: list[str]
    state: str = "queued"
    attempt: int = 0  # how often it was started
    directory: str = ""  # below the sweep's; what was done already and is done again has another one
    owner: dict[str, Any] | None = None  # the driver that started it
    code: int | None = None
    reason: str = ""
    value: float | None = None  # the monitored metric of the best weights
    pruned: bool = False
    seconds: float = 0.0

    def started(self) -> "JobState":
        """The same job, running now and driven by this process; where it was interrupted it goes on."""
        attempt = self.attempt + 1
        directory = f"{self.id}-{attempt}" if self.state == "done" else self.directory or self.id
        return JobState(
            self.id, self.overrides, "running", attempt, directory, asdict(process_identity(os.getpid()))
        )


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
        """Write what has become of a job."""
        file = self.path / "states" / f"{state.id}.json"
        file.parent.mkdir(exist_ok=True)
        write_json(file, asdict(state))
        return state

    def queue(self) -> dict[str, Any]:
        """The latest command line: experiment, overrides (without secrets), swept, monitor, total, jobs (identity, overrides)."""
        return read_json(self.path / "queue.json")

    def write_queue(self, **content: Any) -> None:
        """Write down what is to be done."""
        write_json(self.path / "queue.json", content)

    def driver(self) -> ProcessIdentity | None:
        """The process that runs the sweep, or ran it last."""
        content = read_json(self.path / "driver.json")
        return ProcessIdentity(**content["owner"]) if "owner" in content else None

    def driven(self) -> bool | None:
        """Whether a process drives it now; nothing if that is on another host, where one cannot see it."""
        content = read_json(self.path / "driver.json")
        return content["beat"] >= 0 and ProcessIdentity(**content["owner"]).alive() if content else False

    def acquire(self) -> None:
        """Become the one driver of the sweep.

        The lock goes away with its process; for a driver on another host, where a lock may not reach, there is a beat.

        Raises:
            RegenteError: while another process drives it.
        """
        try:
            self.lock.acquire()
        except Timeout:
            raise RegenteError(self._taken(self.driver())) from None
        before = read_json(self.path / "driver.json")
        if before and before["beat"] >= 0 and ProcessIdentity(**before["owner"]).alive() is None:
            time.sleep(LEASE)
            if read_json(self.path / "driver.json") != before:
                self.lock.release()
                raise RegenteError(self._taken(ProcessIdentity(**before["owner"])))
        self._beat(0)
        threading.Thread(target=self._beats, daemon=True).start()

    def release(self) -> None:
        """Leave the sweep to others."""
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
                self.path / "driver.json", {"owner": asdict(process_identity(os.getpid())), "beat": number}
            )


def settle(folder: SweepFolder, metric: str, grace: float) -> None:
    """Write down what really became of the jobs that a driver has left as running."""
    running = [state for state in folder.load().values() if state.state == "running"]
    with ThreadPoolExecutor(max(1, len(running))) as pool:
        for state in pool.map(lambda state: _settled(folder, state, metric, grace), running):
            folder.save(state)


def _settled(folder: SweepFolder, state: JobState, metric: str, grace: float) -> JobState:
    """Done if its result is whole, else killed; still running if it is on another machine and shows life.

    A process of it that lives here is on its way out, since its driver is gone; it is waited for, at last ended.
    """
    job = folder.path / state.directory
    driver = ProcessIdentity(**state.owner) if state.owner else None
    end = time.monotonic() + 1.0  # for a process that was being started when its driver died
    while driver and not (job / PROCESS).is_file() and time.monotonic() < end:
        time.sleep(0.05)
    if content := read_json(job / PROCESS):
        process, end = ProcessIdentity(**content), time.monotonic() + grace
        while process.alive() and time.monotonic() < end:
            time.sleep(0.05)
        if process.alive():
            with suppress(OSError):
                os.kill(process.pid, 9)
        elsewhere = process.alive() is None and not (job / "result.json").is_file()
        if elsewhere and has_heartbeat(job / PROCESS):
            return state
    if result := read_json(job / "result.json"):
        return replace(state, state="done", code=0, **result_fields(result, metric))
    return replace(state, state="killed", reason="its driver was killed")


def result_fields(result: dict[str, Any], metric: str) -> dict[str, Any]:
    """What of a job's result its state repeats."""
    return {
        "value": result["metrics"].get(metric),
        "pruned": bool(result.get("pruned")),
        "seconds": result["seconds"],
    }
