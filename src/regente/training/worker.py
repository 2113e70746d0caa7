"""`python -m regente.training.worker JOB_DIR` runs a frozen job: the one command that a slot, a rank or a cluster starts."""

import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from regente.config.environment import env_references, from_environment
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor, secret_values
from regente.errors import RegenteError, TrackingError
from regente.jobs import console
from regente.jobs.exit_status import (
    ExitStatus,
    exit_status_of,
    say,
)
from regente.jobs.fast_exit import FastExit
from regente.jobs.job import PROCESS, Job, claim, open_job, write_json
from regente.jobs.process_identity import ProcessIdentity, process_identity, start_heartbeat
from regente.jobs.runs import shown
from regente.jobs.signals import SIGNALS, signals_as_exceptions
from regente.jobs.streams import forgive
from regente.tracking.recorder import Recorder, show
from regente.training.ranks.rank import Rank, shared_exit_status, this_rank
from regente.training.ranks.rendezvous import is_rank

CAN_GO_ON = {1, 7, *(128 + each for each in SIGNALS)}  # exit codes after which the run may be taken up again
PATIENCE = 120.0  # seconds to save and end once the driver is gone
DRIVER = "REGENTE_DRIVER"  # the process that waits for this one, as JSON
# Lightning's tips and checks, which repeat in other words what `check` and the header have said
QUIET = ("pytorch_lightning", "lightning_fabric", "lightning_utilities", "torch", "torchmetrics")


Act = Callable[[Job, dict[str, Any], Recorder, Console], None]


def run(path: Path, *, debug: bool = False, act: Act | None = None, kind: str = "job") -> int:
    """Run the job in a directory and return its exit code; `act`: what is done with it, if not to train."""
    job = open_job(path)
    is_rank(
        resolve(job.config, ["trainer"])["trainer"]
    )  # what srun says of it comes into the words of torchrun
    rank = this_rank()
    with claim(job) if rank.number == 0 else nullcontext():
        return _run(job, rank, debug, act, kind)


def _run(job: Job, rank: Rank, debug: bool, act: Act | None, kind: str) -> int:
    out = console.terminal(quiet=rank.number > 0)
    if job.project not in sys.path:
        sys.path.append(job.project)  # the user's own modules
    os.environ.update({name: from_environment(value) for name, value in job.env.items()})
    if rank.number == 0:
        write_json(job.path / PROCESS, asdict(process_identity(os.getpid())))
        start_heartbeat(job.path / PROCESS)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which says when it starts
    config = resolve(job.config)
    if rank.restart == 0:
        console.header(out, job)
    redact = Redactor(secret_values(config), env_references(job.config))
    recorder = Recorder(job, config, rank.number, redact, kind)
    try:
        with signals_as_exceptions():
            (act or _train)(job, config, recorder, out)
        ending = ExitStatus("FINISHED", 0)
    except BaseException as error:  # also what a signal raises, and a sys.exit in the user's code
        found = exit_status_of(error, job.resume_states)
        ending = replace(found, message=redact.text(found.message), trace=redact.text(found.trace))
        if rank.of > 1:
            ending = shared_exit_status(job, rank, error, ending)
    if rank.starts_again(ending):
        return ending.exit_code  # the next restart goes on with the run
    if ending.trace and rank.number == 0:
        keep_trace(job, recorder, ending)
    if not rank.agent:
        say(ending, debug=debug)
    recorded = recorder.finish(ending.status)
    show(out, job, recorded, ended_well=ending.exit_code == 0)
    if kind == "job" and ending.exit_code in CAN_GO_ON:
        console.row(out, "go on", f"regente resume {shown(job.path)}")
    return ending.exit_code or (TrackingError.exit_code if recorded.refused else 0)


def _train(job: Job, config: dict[str, Any], recorder: Recorder, out: Console) -> None:
    with imports():
        from regente.training.fit import train
    with quiet_libraries():
        result = train(job, config, recorder, out)
    console.closing(out, job, result)


def follow_driver() -> None:
    """End with the process that started this one, also when that is killed and can tell nobody."""
    driver = ProcessIdentity(**json.loads(os.environ[DRIVER]))

    def watch() -> None:
        while driver.alive():
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)  # it hangs where no signal is heard

    threading.Thread(target=watch, daemon=True).start()


def keep_trace(job: Job, recorder: Recorder, ending: ExitStatus) -> None:
    """Leave the traceback in the job directory and in the run."""
    trace = job.path / "traceback.txt"
    with suppress(OSError):  # a full disk must not hide what went wrong
        trace.write_text(ending.trace, encoding="utf-8")
    recorder.journal.write("artifact", path=str(trace), to="")
    recorder.journal.write("tags", values={"regente.failure": ending.message.splitlines()[-1][:500]})


@contextmanager
def imports() -> Iterator[None]:
    """Without garbage collection: a quarter of the time that importing torch and Lightning takes is its sweeps."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No chatter of libraries that a user cannot act on; warnings from elsewhere come through."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for name in QUIET:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        yield


if __name__ == "__main__":
    leave = FastExit()
    forgive()
    if DRIVER in os.environ:
        follow_driver()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m regente.training.worker JOB_DIR")
    try:
        leave(run(Path(sys.argv[1])))
    except RegenteError as error:
        print(error, file=sys.stderr)  # noqa: T201
        leave(error.exit_code)
