"""How a run ends: its status in MLflow, its exit code, and what the user reads."""

import atexit
import logging
import os
import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from regente.errors import ConfigError, DivergedError, MachineError, Problem, RegenteError, Stopped
from regente.jobs import checkpoint_files

PACKAGE = Path(__file__).parents[1]
MONITORED = re.compile(
    r"(?:monitor='|conditioned on metric `?)([^'`\s]+).*(?:returned metrics: \[|following: |metrics are: \[)([^\]]*)"
)
# SIGUSR1 is what Slurm sends some time before a job's end, if asked to
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@dataclass(frozen=True)
class ExitStatus:
    """`status` is MLflow's; `message` is empty when all went well."""

    status: str
    exit_code: int
    message: str = ""
    trace: str = ""


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Within, the first SIGINT, SIGTERM or SIGHUP raises `Stopped`; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        stopping(number)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def stopping(number: int) -> None:
    """Tell who has pressed Ctrl-C that it was heard."""
    if number == signal.SIGINT and os.isatty(2):
        os.write(2, b"\nstopping; Ctrl-C once more ends it at once\n")


def exit_status_of(error: BaseException, states: Path | None = None) -> ExitStatus:
    """What an exception out of the run means; `states` is where it keeps those to go on from."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Stopped):
        saved = checkpoint_files.points(states) if states else []
        what = f", the state of step {checkpoint_files.place(saved[0])[0]:,} is saved" if saved else ""
        return ExitStatus("KILLED", error.exit_code, f"{error.name}: stopped{what}", trace)
    if isinstance(error, RegenteError):
        return ExitStatus("FAILED", error.exit_code, str(error), trace)
    if type(error).__name__ == "OutOfMemoryError":
        return ExitStatus("FAILED", MachineError.exit_code, out_of_memory(error), trace)
    if isinstance(error, RuntimeError) and "returned nan values" in str(error):  # trainer.detect_anomaly
        return ExitStatus(
            "FAILED", DivergedError.exit_code, f"the gradient is no longer a number: {error}", trace
        )
    if problem := unlogged(error):
        return ExitStatus("FAILED", ConfigError.exit_code, str(problem), trace)
    what = f"{type(error).__name__}: {error}"
    place = users_line(error.__traceback__)
    if place:
        return ExitStatus("FAILED", 1, f"{place}: {what}", trace)
    return ExitStatus(
        "FAILED", 1, f"{trace}\nThis looks like a fault of Regente, or of a library it builds on.", trace
    )


def unlogged(error: BaseException) -> Problem | None:
    """What Lightning means when it finds the monitored metric of a task of the user's own nowhere."""
    said = MONITORED.search(str(error))
    if said is None:
        return None
    logged = sorted(set(re.findall(r"[^\s'`,]+", said[2])) - {"epoch", "step"})
    close = get_close_matches(said[1], logged, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Problem(f"monitor.metric={said[1]}", f"never logged; {hint}logged: {', '.join(logged)}")


def out_of_memory(error: BaseException) -> str:
    """One line of torch's ten, and what to lower."""
    size = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    wanted = f" ({size[1]} more were wanted)" if size else ""
    return (
        f"out of memory on the device{wanted}; lower data.batch_size, "
        "or keep it with trainer.on_oom=halve, or trainer.precision=bf16"
    )


def users_line(trace: TracebackType | None) -> str:
    """`file:line` of the innermost frame in the user's own code, or nothing."""
    libraries = [Path(sysconfig.get_paths()[kind]).resolve() for kind in ("stdlib", "purelib", "platlib")]
    place = ""
    for frame, line in traceback.walk_tb(trace):
        file = Path(frame.f_code.co_filename)
        if not file.is_file() or file.resolve().is_relative_to(PACKAGE):
            continue
        if not any(file.resolve().is_relative_to(folder) for folder in libraries):
            place = f"{file}:{line}"
    return place


def say(ending: ExitStatus, *, debug: bool = False) -> None:
    """Print an ending that needs words, to stderr."""
    text = ending.trace if debug and ending.trace else ending.message
    if text:
        print(text.rstrip(), file=sys.stderr)  # noqa: T201


class SwiftExit:
    """Make one before anything else, and call it with the exit code when all is done.

    What is registered with atexit in between still runs, but the interpreter is not taken apart: with torch and
    Lightning in it that takes two seconds, in which nothing is left to be done.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self._last)  # the first to be registered is the last to be called

    def __call__(self, code: int) -> NoReturn:
        self.code = code
        sys.exit(code)

    def _last(self) -> None:
        if self.code is None:
            return
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or never there
                stream.flush()
        os._exit(self.code)
