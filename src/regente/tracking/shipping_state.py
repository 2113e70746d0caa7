"""How much of a job's journal is in MLflow, and how its run has ended; read without MLflow."""

import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from regente.jobs.job import JOURNAL, fits, read_json
from regente.jobs.result import read_result
from regente.tracking.journal import read

STATE = "recorded.json"  # in the job directory; only of jobs that are tracked

STATE_TYPES = {
    **dict.fromkeys(["run_id", "experiment_id", "experiment", "claim", "problem", "refused"], str),
    **dict.fromkeys(["offset", "time", "jobs"], int),
    **dict.fromkeys(["ended", "complete"], bool),
    "uploaded": dict[str, list[int]],
    "lost": list[str],
}
State = dict[str, Any]
"""Content of `recorded.json`:
    run_id, experiment_id, experiment    the run in MLflow, and the name of its experiment
    claim                                a secret of the job: see CLAIM_TAG
    offset, time                         bytes of the journal that are shipped, and the time of the last shipped line
    ended                                the run has its end
    complete                             figures and model are logged too
    jobs                                 of a sweep: how many of its journals its shipper has shipped
    uploaded                             time (ns) and size of each of the user's files when it was uploaded, by name
    problem                              why the last attempt to ship failed
    refused                              why the store will never take the run
    lost                                 values and files that the store refused, with its reasons
"""


def read_state(path: Path) -> State:
    """How much of a job's journal is in MLflow."""
    empty: State = {"offset": 0, "ended": False, "problem": "", "refused": ""}
    found = read_json(path / STATE)
    return empty | found if all(fits(STATE_TYPES.get(key, Any), found[key]) for key in found) else empty


def lock_of(path: Path, timeout: float = 0) -> FileLock:
    """The lock of whoever ships a job's journal; raises Timeout after `timeout` seconds."""
    return FileLock(path / ".shipper.lock", timeout=timeout)


def ending_of(path: Path) -> tuple[str, int]:
    """Status and time (ms) of the end of a job whose process is dead.

    As its journal says; without an end there it is finished if it left its result, else it was killed.
    """
    lines, _ = read(path / JOURNAL, 0)
    last = lines[-1] if lines else {}
    status = last.get("status") if last.get("kind") == "end" else None
    if status not in ("FINISHED", "FAILED", "KILLED"):
        status = "FINISHED" if read_result(path) else "KILLED"
    at = last.get("time")
    return status, at if isinstance(at, int) else int(time.time() * 1000)


def has_result(path: Path) -> bool:
    """Whether the last attempt has written its result into the journal."""
    kinds = [line["kind"] for line in read(path / JOURNAL, 0)[0]]
    return (
        "result"
        in kinds[max((n for n, kind in enumerate(kinds) if kind in ("start", "resume")), default=0) :]
    )
