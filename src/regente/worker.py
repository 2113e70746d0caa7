"""`python -m regente.worker JOB_DIR` runs a frozen job: the one command that a slot, a rank or a cluster starts."""

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

from regente import display
from regente.endings import SIGNALS, Ending, SwiftExit, ending_of, say, signals_as_exceptions
from regente.errors import RegenteError, TrackingError
from regente.job import PROCESS, Job, claim, open_job, write_json
from regente.ranks.meeting import is_rank
from regente.ranks.rank import Rank, shared_ending, this_rank
from regente.redact import Redactor, secret_values
from regente.references import env_references, from_environment
from regente.resolving import resolve
from regente.runs import shown
from regente.streams import forgive
from regente.tracking.owner import Owner, owner, show_life
from regente.tracking.recording import Recording

CAN_GO_ON = {1, 7, *(128 + each for each in SIGNALS)}  # exit codes after which the run may be taken up again
PATIENCE = 120.0  # seconds to save and end once the driver is gone
DRIVER = "REGENTE_DRIVER"  # the process that waits for this one, as JSON
# Lightning's tips and checks, which repeat in other words what `check` and the header have said
QUIET = ("pytorch_lightning", "lightning_fabric", "lightning_utilities", "torch", "torchmetrics")


Act = Callable[[Job, dict[str, Any], Recording, Console], None]


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
    out = display.console(quiet=rank.number > 0)
    if job.project not in sys.path:
        sys.path.append(job.project)  # the user's own modules
    os.environ.update({name: from_environment(value) for name, value in job.env.items()})
    if rank.number == 0:
        write_json(job.path / PROCESS, asdict(owner(os.getpid())))
        show_life(job.path / PROCESS)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which says when it starts
    config = resolve(job.config)
    if rank.attempt == 0:
        display.header(out, job)
    redact = Redactor(secret_values(config), env_references(job.config))
    recording = Recording(job, config, rank.number, redact, kind)
    try:
        with signals_as_exceptions():
            (act or _train)(job, config, recording, out)
        ending = Ending("FINISHED", 0)
    except BaseException as error:  # also what a signal raises, and a sys.exit in the user's code
        found = ending_of(error, job.resume_points)
        ending = replace(found, message=redact.text(found.message), trace=redact.text(found.trace))
        if rank.of > 1:
            ending = shared_ending(job, rank, error, ending)
    if rank.starts_again(ending):
        return ending.exit_code  # the next attempt goes on with the run
    if ending.trace and rank.number == 0:
        keep_trace(job, recording, ending)
    if not rank.agent:
        say(ending, debug=debug)
    recorded = recording.finish(ending.status)
    display.run(out, job, recorded, ended_well=ending.exit_code == 0)
    if kind == "job" and ending.exit_code in CAN_GO_ON:
        display.row(out, "go on", f"regente resume {shown(job.path)}")
    return ending.exit_code or (TrackingError.exit_code if recorded.refused else 0)


def _train(job: Job, config: dict[str, Any], recording: Recording, out: Console) -> None:
    with imports():
        from regente.train import train
    with quiet_libraries():
        result = train(job, config, recording, out)
    display.closing(out, job, result)


def follow_driver() -> None:
    """End with the process that started this one, also when that is killed and can tell nobody."""
    driver = Owner(**json.loads(os.environ[DRIVER]))

    def watch() -> None:
        while driver.alive():
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)  # it hangs where no signal is heard

    threading.Thread(target=watch, daemon=True).start()


def keep_trace(job: Job, recording: Recording, ending: Ending) -> None:
    """Leave the traceback in the job directory and in the run."""
    trace = job.path / "traceback.txt"
    with suppress(OSError):  # a full disk must not hide what went wrong
        trace.write_text(ending.trace, encoding="utf-8")
    recording.journal.write("artifact", path=str(trace), to="")
    recording.journal.write("tags", values={"regente.failure": ending.message.splitlines()[-1][:500]})


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
    leave = SwiftExit()
    forgive()
    if DRIVER in os.environ:
        follow_driver()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m regente.worker JOB_DIR")
    try:
        leave(run(Path(sys.argv[1])))
    except RegenteError as error:
        print(error, file=sys.stderr)  # noqa: T201
        leave(error.exit_code)
