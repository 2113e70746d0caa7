"""The process that ships a job's journal to MLflow: `python -m regente.tracking.shipper JOB_DIR`.

It is a process of its own so that the training does not pay for MLflow's import (2 s of CPU) or its database, and
so that a run whose process was killed still gets its end.
"""

import os
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import Timeout

from regente.errors import TrackingError
from regente.jobs.found_files import open_regular
from regente.jobs.job import QUEUE, Job, open_job
from regente.jobs.process_identity import HEARTBEAT, ProcessIdentity
from regente.jobs.trust import run_handed_over
from regente.tracking.mlflow_run import NORMAL_PRIORITY, PATIENCE, POLL, Shipment, lock_of
from regente.tracking.provenance import Usage
from regente.tracking.store import unreachable

# seconds to wait for the shipper of the run's attempt before, which a busy machine may starve
LOCK_WAIT = 3600.0
SLICE, AT_END = 3.0, 20.0  # seconds for the journals that others have left, in the training and after it


class Others:
    """The journals that dead processes have left; a job of a sweep leaves them to the sweep."""

    def __init__(self, job: Job, uri: str) -> None:
        self.job, self.uri = job, uri
        self.done = (job.path.parent / QUEUE).is_file()

    def ship(self, seconds: float) -> None:
        """Ship them, and close the runs of dead processes, as far as the time allows."""
        if self.done:
            return
        from regente.tracking.sync import sync_store

        end = time.monotonic() + seconds
        with suppress(Exception):
            sync_store(Path(self.job.project), self.uri, stop=lambda: time.monotonic() > end)
        self.done = time.monotonic() < end


def follow(shipment: Shipment, process: ProcessIdentity, others: Others) -> None:
    """Ship until the journal ends or its process is dead; go on trying while the store does not answer."""
    beats, due, pause = 0, time.monotonic() + HEARTBEAT, POLL
    failing_since: float | None = None  # since when the store does not answer after the end of the job
    usage = Usage(process.pid)
    while not shipment.state["ended"]:
        alive = process.alive() is not False  # before ship(), which then sees the last line of a dead process
        try:
            if time.monotonic() > due:
                beats, due = beats + 1, time.monotonic() + HEARTBEAT
                shipment.heartbeat(beats, usage.sample())
            if not shipment.ship() and not alive:
                shipment.end_of_dead()
            if "run_id" in shipment.state and not shipment.state["ended"]:
                others.ship(SLICE)
            pause, failing_since = POLL, None
        except TrackingError as error:
            return shipment.note(refused=str(error))
        except Exception as error:  # MLflow, SQLAlchemy and requests each have their own
            away = unreachable(shipment.uri)
            first = next(iter(str(error).splitlines()), "")
            shipment.note(problem=f"no answer: {away}" if away else f"{type(error).__name__}: {first[:200]}")
            if not alive or journal_ended(shipment.job.journal):
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > PATIENCE:
                    return None
            pause = min(2 * pause, 5.0)
        if not shipment.state["ended"]:
            time.sleep(pause)
    return None


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
    """Follow a job's journal and, meanwhile, ship the unshipped journals of dead runs; the exit code."""
    from regente.config.interpolation import resolve
    from regente.tracking.run_artifacts import keep_provenance
    from regente.tracking.sync import process_of_job

    if low_priority:
        lower_priority()
    job = open_job(path)
    uri = resolve(job.config)["tracking"]["uri"]
    keep_provenance(job)  # at once: the code may change before the store answers
    process = process_of_job(job)
    with suppress(Timeout), lock_of(path, LOCK_WAIT):
        shipment = Shipment(job, uri)
        if shipment.state["ended"] and not journal_ended(job.journal):
            shipment.reopen()  # it was closed as killed while it was being resumed
        others = Others(job, uri)
        follow(shipment, process, others)
        try:
            shipment.log_outputs()
        except Exception:  # the run itself is in the store; shipper.log says what is missing and why
            traceback.print_exc()
        if shipment.state["ended"]:
            others.ship(AT_END)
    return 0


if __name__ == "__main__":
    low = NORMAL_PRIORITY not in sys.argv
    code = run_handed_over(Path(sys.argv[1]), partial(main, low_priority=low))
    sys.stdout.flush()
    os._exit(code)  # without the teardown of MLflow's modules, which takes a tenth of a second
