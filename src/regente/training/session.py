"""What every work on a job needs: its lock, its recorder, its console, and an end with an exit code after any error."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from regente.config.environment import env_references
from regente.config.redaction import Redactor, secret_values
from regente.errors import TrackingError
from regente.jobs import console
from regente.jobs.exit_status import ExitStatus, exit_status_of, memory_limit, own_parts, say
from regente.jobs.imports import without_garbage_collection
from regente.jobs.job import PROCESS, Job, claim
from regente.jobs.process_identity import start_heartbeat
from regente.jobs.runs import shown
from regente.jobs.signals import SIGNALS, signals_as_exceptions
from regente.jobs.streams import redact_output
from regente.tracking.recorder import Recorder, show
from regente.training.ranks.rank import Rank, forget_exits, shared_exit_status, this_rank

RESUMABLE = {1, 7, *(128 + each for each in SIGNALS)}  # exit codes after which the run can be resumed
TORCH = 4e9  # bytes of address space in which torch with CUDA's libraries can be imported
# Lightning's tips and checks, which repeat what `check` and the header say
LIBRARIES = ("pytorch_lightning", "lightning_fabric", "lightning_utilities", "torch", "torchmetrics")


@dataclass
class Session:
    """The work on one job in this process."""

    job: Job
    config: dict[str, Any]  # resolved
    recorder: Recorder
    out: Console
    rank: Rank
    started: float = 0.0  # by time.perf_counter(), after the imports
    exit_code: int = 0  # once it has ended


@contextmanager
def session(job: Job, config: dict[str, Any], *, kind: str = "job", debug: bool = False) -> Iterator[Session]:
    """Record what is done with a job inside; an exception from there becomes the exit code.

    `kind`: "job", or what else is done with the job ("evaluation").

    Raises:
        ConfigError: when another process runs the job.
    """
    rank = this_rank()
    with claim(job) if rank.number == 0 else nullcontext():
        current = _open(job, config, kind, rank)
        try:
            with signals_as_exceptions(), quiet_libraries():
                yield current
            status = ExitStatus("FINISHED", 0)
        except BaseException as error:  # also what a signal raises, and a sys.exit in the user's code
            redact = Redactor(secret_values(config), env_references(job.config)).text
            found = exit_status_of(error, job.resume_states, own_parts(config))
            status = replace(found, message=redact(found.message), trace=redact(found.trace))
            if rank.of > 1:
                status = shared_exit_status(job, rank, error, status)
        current.exit_code = _close(current, kind, status, debug=debug)


def _open(job: Job, config: dict[str, Any], kind: str, rank: Rank) -> Session:
    out = console.terminal(quiet=rank.number > 0)
    if job.project not in sys.path:
        sys.path.append(job.project)  # the user's own modules
    if rank.number == 0:
        if rank.of > 1 and rank.restart == 0 and not rank.agent:
            forget_exits(job)
        start_heartbeat(job.path / PROCESS)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints when it starts
    if rank.restart == 0:
        console.header(out, job)
    redact = Redactor(secret_values(config), env_references(job.config))
    redact_output(redact.text)
    recorder = Recorder(job, config, rank.number, redact, kind)
    recorder.start()
    return Session(job, config, recorder, out, rank)


def _close(current: Session, kind: str, status: ExitStatus, *, debug: bool) -> int:
    job, out, rank = current.job, current.out, current.rank
    if rank.starts_again(status):
        return status.exit_code  # the next restart goes on with the run
    if status.trace and rank.number == 0:
        _keep_trace(current, status)
    if not rank.agent:
        say(status, debug=debug)
    recorded = current.recorder.finish(status.status)
    show(out, job, recorded, ended_well=status.exit_code == 0)
    if kind == "job" and status.exit_code in RESUMABLE:
        console.row(out, "resume", f"regente resume {shown(job.path)}")
    return status.exit_code or (TrackingError.exit_code if recorded.refused else 0)


def _keep_trace(current: Session, status: ExitStatus) -> None:
    """Leave the traceback in the job directory and in the run."""
    trace = current.job.path / "traceback.txt"
    with suppress(OSError):  # a full disk must not hide the error itself
        trace.write_text(status.trace, encoding="utf-8")
    journal = current.recorder.journal
    journal.artifact(trace, "")
    journal.write("tags", values={"regente.failure": status.message.splitlines()[-1][:500]})


@contextmanager
def imports() -> Iterator[None]:
    """Import torch and Lightning inside, with silent loggers."""
    if limit := memory_limit(TORCH):  # the C library then aborts the process
        print(f"note: torch may abort: {limit}", file=sys.stderr)  # noqa: T201
    with without_garbage_collection():
        yield
    for name in LIBRARIES:  # Lightning sets its level when it is imported
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the warnings of libraries that a user cannot act on; other warnings are shown."""
    with warnings.catch_warnings():
        for name in LIBRARIES:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        yield
