"""The process that ships journals to MLflow: `python -m regente.tracking.shipper JOB_DIR`.

It is a process of its own so that the training does not pay for MLflow's import (2 s of CPU) or its database, and
so that a run whose process was killed still gets its end. Of a sweep it ships the journals of all jobs.
"""

import os
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import Timeout

from regente.errors import RegenteError, TrackingError
from regente.jobs.found_files import open_regular
from regente.jobs.job import JOURNAL, QUEUE, Job, open_job
from regente.jobs.process_identity import HEARTBEAT
from regente.jobs.trust import made_by_user, run_handed_over
from regente.tracking.mlflow_run import NORMAL_PRIORITY, PATIENCE, POLL, Clients, Shipment
from regente.tracking.provenance import Usage
from regente.tracking.run_artifacts import keep_provenance
from regente.tracking.shipping_state import lock_of
from regente.tracking.store import unreachable
from regente.tracking.sync import is_unshipped, process_of_job, store_of, sync_store

# seconds to wait for the shipper of the run's attempt before, which a busy machine may starve
LOCK_WAIT = 3600.0
SLICE, AT_END = 3.0, 20.0  # seconds for the journals that others have left, in the training and after it
POLL_SWEPT = 2.0  # seconds between looks at the journal of a job that has not ended
SHARE = 0.05  # of a core, at most, that looking for new lines of a sweep's jobs takes


class Follower:
    """Ships one journal until it ends or its process is dead; goes on trying while the store does not answer.

    Raises:
        Timeout: while another process ships that journal, after `wait` seconds.
        RegenteError: when the job names a store that is not trusted, or its files are damaged.
    """

    def __init__(
        self, job: Job, clients: Clients, *, own: bool = True, wait: float = 0, poll: float = POLL
    ) -> None:
        self.job, self.process, self.poll = job, process_of_job(job), poll
        uri = store_of(job, Path(job.project), own) or ""
        self.lock = lock_of(job.path, wait)
        self.lock.acquire()
        self.shipment = Shipment(job, uri, own=own, clients=clients)
        # it was closed as killed while it was being resumed
        self.reopens = self.shipment.state["ended"] and not journal_ended(job.journal)
        self.usage = Usage(self.process.pid) if self.process.alive() else None  # None: on another machine
        self.beats, self.beat_at = 0, time.monotonic() + HEARTBEAT
        self.next, self.pause = time.monotonic() + poll - POLL, poll  # a short job takes one request
        self.failing_since: float | None = (
            None  # since when the store does not answer after the end of the job
        )

    def step(self, *, unseen_is_dead: bool = False) -> bool:
        """Ship what is new; whether there is no more to ship.

        `unseen_is_dead`: a process on another machine, which cannot be seen from here, has ended.
        """
        answers = self.pause == self.poll
        if time.monotonic() < self.next and not (answers and journal_ended(self.job.journal)):
            return False
        alive = self._alive(unseen_is_dead)  # before ship(), which then sees the last line of a dead process
        shipment = self.shipment
        try:
            if self.reopens:
                shipment.reopen()
                self.reopens = False
            if time.monotonic() > self.beat_at:
                self.beats, self.beat_at = self.beats + 1, time.monotonic() + HEARTBEAT
                shipment.heartbeat(self.beats, self.usage.sample() if self.usage else {})
            if not shipment.ship() and not alive:
                shipment.end_of_dead()
            self.pause, self.failing_since = self.poll, None
        except TrackingError as error:
            shipment.note(refused=str(error))
            return True
        except Exception as error:  # MLflow, SQLAlchemy and requests each have their own
            return self._failed(error, alive)
        self.next = time.monotonic() + self.pause
        return bool(shipment.state["ended"])

    def _alive(self, unseen_is_dead: bool) -> bool:
        """Whether the process of the job runs, which may be another one than at the start."""
        if self.process.alive() is False:
            with suppress(TrackingError):  # the job is about to start again
                self.process = process_of_job(self.job)
                self.usage = Usage(self.process.pid) if self.process.alive() else None
        alive = self.process.alive()
        return not unseen_is_dead if alive is None else alive

    def _failed(self, error: Exception, alive: bool) -> bool:
        """Note why the store does not answer; whether it is time to give up."""
        away = unreachable(self.shipment.uri)
        first = next(iter(str(error).splitlines()), "")
        self.shipment.note(problem=f"no answer: {away}" if away else f"{type(error).__name__}: {first[:200]}")
        self.pause = min(2 * self.pause, 5.0)
        self.next = time.monotonic() + self.pause
        if alive and not journal_ended(self.job.journal):
            return False
        self.failing_since = self.failing_since or time.monotonic()
        return time.monotonic() - self.failing_since > PATIENCE

    def close(self) -> None:
        """Log figures and model, and let others ship the journal."""
        try:
            self.shipment.log_outputs()
        except Exception:  # the run itself is in the store; shipper.log says what is missing and why
            traceback.print_exc()
        self.lock.release()


class SweptJobs:
    """The jobs of a sweep whose journals this process ships."""

    def __init__(self, sweep: Follower, clients: Clients) -> None:
        self.sweep, self.clients = sweep, clients
        self.active: dict[Path, Follower] = {}
        self.shipped: dict[Path, int] = {}  # by job: bytes of its journal that need no more work
        self.look_at = 0.0

    def step(self, *, over: bool) -> bool:
        """Ship what is new in all of them; whether there is no more to ship. `over`: the sweep has ended."""
        state = self.sweep.shipment.state
        if not state["refused"] and ("run_id" not in state or state["problem"]):
            return over  # their runs are children of the sweep's; a store that is away is asked once
        self._look(at_once=over)
        # a driver that was killed has not waited for jobs on other machines
        unseen_is_dead = over and self.sweep.process.alive() is not False
        for path, job in list(self.active.items()):
            if state["refused"]:
                job.shipment.note(refused=state["refused"])
            elif not job.step(unseen_is_dead=unseen_is_dead):
                continue
            job.close()
            found = self.active.pop(path).shipment.state
            self.shipped[path] = found["offset"] if found["ended"] else size(path)
            self.sweep.shipment.note(jobs=len(self.shipped))
        waiting = [
            each for each in self.active.values() if unseen_is_dead or each.process.alive() is not None
        ]
        return over and not waiting

    def _look(self, *, at_once: bool) -> None:
        """Look for jobs whose journals have new lines."""
        begun = time.monotonic()
        if begun < self.look_at and not at_once:
            return
        with os.scandir(self.sweep.job.path) as entries:
            folders = [Path(each.path) for each in entries if each.is_dir(follow_symlinks=False)]
        for path in folders:
            if path in self.active or self.shipped.get(path) == size(path) or not is_unshipped(path):
                continue
            try:
                job = open_job(path)
                self.active[path] = Follower(job, self.clients, own=made_by_user(job), poll=POLL_SWEPT)
            except Timeout:
                continue  # regente sync ships it at this moment
            except (RegenteError, OSError):
                self.shipped[path] = size(path)  # regente sync says what is wrong with it
        self.look_at = begun + (time.monotonic() - begun) / SHARE


def size(path: Path) -> int:
    """Bytes of a job's journal; -1 where there is none."""
    with suppress(OSError):
        return (path / JOURNAL).stat().st_size
    return -1


class Others:
    """The journals that dead processes have left; a job of a sweep leaves them to the sweep."""

    def __init__(self, job: Job, uri: str) -> None:
        self.job, self.uri = job, uri
        self.done = (job.path.parent / QUEUE).is_file()

    def ship(self, seconds: float) -> None:
        """Ship them, and close the runs of dead processes, as far as the time allows."""
        if self.done:
            return
        end = time.monotonic() + seconds
        with suppress(Exception):
            sync_store(Path(self.job.project), self.uri, stop=lambda: time.monotonic() > end)
        self.done = time.monotonic() < end


def journal_ended(path: Path) -> bool:
    """Whether the last line of a journal is its end."""
    with suppress(OSError), open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
        return b'"kind":"end"' in file.read()
    return False


def lower_priority() -> None:
    """Leave the cores to the training.

    Its threads wait for each other: a neighbour with equal priority on one core slows it three times, and forty times
    if that neighbour never sleeps. Linux applies niceness within a session, and between sessions the niceness of
    their autogroups; the shipper has a session of its own.
    """
    os.nice(19)
    with suppress(OSError):  # not Linux, or a kernel without autogroups
        Path("/proc/self/autogroup").write_text("19")


def main(path: Path, *, low_priority: bool) -> int:
    """Follow a job's journal, or those of a sweep, and ship the journals of dead runs meanwhile; the exit code."""
    if low_priority:
        lower_priority()
    job, clients = open_job(path), Clients()
    keep_provenance(job)  # at once: the code may change before the store answers
    with suppress(Timeout):
        own = Follower(job, clients, wait=LOCK_WAIT)
        jobs = SweptJobs(own, clients) if (path / QUEUE).is_file() else None
        others, done = Others(job, own.shipment.uri), False
        while True:
            done = done or own.step()
            # the jobs of a sweep that the store refuses go on to start
            over = done and not (jobs and own.shipment.state["refused"] and own.process.alive())
            if (jobs is None or jobs.step(over=over)) and over:
                break
            if "run_id" in own.shipment.state and not done:
                others.ship(SLICE)
            time.sleep(POLL)
        own.close()
        if own.shipment.state["ended"]:
            others.ship(AT_END)
    return 0


if __name__ == "__main__":
    low = NORMAL_PRIORITY not in sys.argv
    code = run_handed_over(Path(sys.argv[1]), partial(main, low_priority=low))
    sys.stdout.flush()
    os._exit(code)  # without the teardown of MLflow's modules, which takes a tenth of a second
