"""The exit status of a run: its status in MLflow, its exit code, and the message for the user."""

import re
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType

from regente.errors import ConfigError, DivergedError, MachineError, Problem, RegenteError, Stopped
from regente.jobs import checkpoint_files

PACKAGE = Path(__file__).parents[1]
MONITORED = re.compile(
    r"(?:monitor='|conditioned on metric `?)([^'`\s]+).*(?:returned metrics: \[|following: |metrics are: \[)([^\]]*)"
)


@dataclass(frozen=True)
class ExitStatus:
    """`status` is that of the MLflow run; `message` is empty after a success."""

    status: str
    exit_code: int
    message: str = ""
    trace: str = ""


def exit_code(returncode: int) -> int:
    """The exit code of a process by its return code, which is negative after a signal: 128 + the signal's number."""
    return returncode if returncode >= 0 else 128 - returncode


def exit_status_of(error: BaseException, states: Path | None = None) -> ExitStatus:
    """The exit status that belongs to an exception; `states`: the folder of the run's resume states."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Stopped):
        saved = checkpoint_files.resume_states(states) if states else []
        what = (
            f", the state of step {checkpoint_files.step_and_stage(saved[0])[0]:,} is saved" if saved else ""
        )
        return ExitStatus("KILLED", error.exit_code, f"{error.name}: stopped{what}", trace)
    if isinstance(error, RegenteError):
        return ExitStatus("FAILED", error.exit_code, str(error), trace)
    if type(error).__name__ == "OutOfMemoryError":
        return ExitStatus("FAILED", MachineError.exit_code, out_of_memory(error), trace)
    if isinstance(error, RuntimeError) and "returned nan values" in str(error):  # trainer.detect_anomaly
        return ExitStatus("FAILED", DivergedError.exit_code, f"the gradient is not finite: {error}", trace)
    if problem := metric_never_logged(error):
        return ExitStatus("FAILED", ConfigError.exit_code, str(problem), trace)
    if line := line_of_user_code(error.__traceback__):
        return ExitStatus("FAILED", 1, f"{line}: {type(error).__name__}: {error}", trace)
    what = "This looks like a fault of Regente, or of a library it builds on."
    return ExitStatus("FAILED", 1, f"{trace}\n{what}", trace)


def metric_never_logged(error: BaseException) -> Problem | None:
    """The problem behind Lightning's errors about a monitored metric that the task does not log; none for others."""
    found = MONITORED.search(str(error))
    if found is None:
        return None
    logged = sorted(set(re.findall(r"[^\s'`,]+", found[2])) - {"epoch", "step"})
    close = get_close_matches(found[1], logged, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Problem(f"monitor.metric={found[1]}", f"never logged; {hint}logged: {', '.join(logged)}")


def out_of_memory(error: BaseException) -> str:
    """One line for torch's ten, with the settings to lower."""
    size = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    wanted = f" ({size[1]} more were needed)" if size else ""
    return (
        f"out of memory on the device{wanted}; lower data.batch_size, "
        "or keep it with trainer.on_oom=halve, or trainer.precision=bf16"
    )


def line_of_user_code(trace: TracebackType | None) -> str:
    """`FILE:LINE` of the innermost frame in the user's own code, empty if there is none."""
    libraries = [Path(sysconfig.get_paths()[kind]).resolve() for kind in ("stdlib", "purelib", "platlib")]
    found = ""
    for frame, line in traceback.walk_tb(trace):
        file = Path(frame.f_code.co_filename)
        if not file.is_file() or file.resolve().is_relative_to(PACKAGE):
            continue
        if not any(file.resolve().is_relative_to(folder) for folder in libraries):
            found = f"{file}:{line}"
    return found


def say(ending: ExitStatus, *, debug: bool = False) -> None:
    """Print the message of an exit status to stderr, if it has one; with `debug` the traceback."""
    text = ending.trace if debug and ending.trace else ending.message
    if text:
        print(text.rstrip(), file=sys.stderr)  # noqa: T201
