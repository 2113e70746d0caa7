"""The process that carries a job's journal into MLflow: `python -m regente.tracking.shipper JOB_DIR PID`.

It is a process of its own so that training pays neither for MLflow's import (2 s of CPU) nor for its
database, and so that a run whose process was killed still gets its end.
"""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from regente.errors import TrackingError
from regente.jobs.job import open_job
from regente.jobs.process_identity import BEAT, ProcessIdentity
from regente.tracking.provenance import Usage
from regente.tracking.shipment import PATIENCE, POLL, Shipment, lock_of
from regente.tracking.store import unreachable

LOCK_WAIT = 60.0  # seconds to wait for the shipper of the run's attempt before


def follow(shipment: Shipment, owner: ProcessIdentity) -> None:
    """Ship until the journal ends, or until its writer is gone; go on trying while the store is away."""
    beats, due, pause = 0, time.monotonic() + BEAT, POLL
    trying_since: float | None = None  # since when the job has ended and the store is away
    usage = Usage(owner.pid)
    while not shipment.state["ended"]:
        alive = owner.alive() is not False  # asked first: what it wrote before it died is shipped below
        try:
            if time.monotonic() > due:
                beats, due = beats + 1, time.monotonic() + BEAT
                shipment.beat(beats, usage.sample())
            if not shipment.ship() and not alive:
                shipment.end_as_killed()
            pause, trying_since = POLL, None
        except Exception as error:
            if isinstance(error, TrackingError):
                return shipment.note(refused=str(error))
            away = unreachable(shipment.uri)
            words = str(error).splitlines() or [""]
            shipment.note(
                trouble=f"no answer: {away}" if away else f"{type(error).__name__}: {words[0][:200]}"
            )
            if not alive or journal_ended(shipment.job.journal):
                trying_since = trying_since or time.monotonic()
                if time.monotonic() - trying_since > PATIENCE:
                    return None
            pause = min(2 * pause, 5.0)
        if not shipment.state["ended"]:
            time.sleep(pause)
    return None


def journal_ended(path: Path) -> bool:
    """Whether the last line of a journal is its end."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        return b'"kind":"end"' in file.read()
    return False


def step_aside() -> None:
    """Leave the cores to the training, this one or the next: its threads wait for each other, so that a neighbour with
    equal rights to one core slows it three times, and forty if it never rests.

    Linux counts niceness within a session alone, and sessions against each other (sched_autogroup): this is one of its own.
    """
    os.nice(19)
    with suppress(OSError):  # not Linux, or without it
        Path("/proc/self/autogroup").write_text("19")


def main(path: Path) -> None:
    """Follow a job's journal; then, or while it trains, put right what dead runs left behind."""
    from regente.config.interpolation import resolve
    from regente.tracking.run_artifacts import keep_provenance
    from regente.tracking.sync import sync_others

    step_aside()
    job = open_job(path)
    uri = resolve(job.config)["tracking"]["uri"]
    keep_provenance(job)  # now, whenever the store is there to take it
    owner = ProcessIdentity(**json.loads((path / "process_identity.json").read_text()))
    with suppress(Timeout), lock_of(path, LOCK_WAIT):
        shipment = Shipment(job, uri)
        if shipment.state["ended"] and not journal_ended(
            job.journal
        ):  # as killed, while the run was going on again
            shipment.reopen()
        follow(shipment, owner)
        try:
            shipment.complete()
        except Exception:  # the run itself is in the store; shipper.log says what is missing and why
            traceback.print_exc()
    with suppress(Exception):
        sync_others(Path(job.project), uri)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
