"""The exit status of a run: its status in MLflow, its exit code, and the message for the user."""

import ast
import linecache
import math
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regente.config.signatures import TargetNotFound, read
from regente.config.trusted_names import is_installed
from regente.errors import ConfigError, DivergedError, MachineError, Problem, RegenteError, Stopped
from regente.jobs import checkpoint_files

PACKAGE = Path(__file__).parents[1]
MONITORED = re.compile(
    r"(?:monitor='|conditioned on metric `?)([^'`\s]+).*(?:returned metrics: \[|following: |metrics are: \[)([^\]]*)"
)
OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|out of memory|can't allocate memory|MemoryError|[Cc]annot allocate memory"
    r"|failed to map segment from shared object$"  # with a reason behind it, the file system is mounted noexec
)
WORKER = "Original Traceback (most recent call last)"  # how torch hands on the error of a worker
FAULT = "This looks like a fault of Regente, or of a library it builds on."
LONGEST = 500  # characters of the message of an error
LIBRARIES = {"None", "regente", "torch", "pytorch_lightning", "lightning", "torchmetrics", "torchvision"}
# What libraries say about a request: the setting, and what to write
KNOWN = (
    (
        re.compile(r"parameters that were not used in producing|finished reduction in the prior iteration"),
        "trainer.strategy",
        "a part of the model takes no part in the loss; use trainer.strategy=ddp_find_unused_parameters_true",
    ),
    (
        re.compile(
            r"`val_check_interval` \((\d+)\) must be less than or equal to the number of the training batches \((\d+)\)"
        ),
        "trainer.val_check_interval",
        r"\1 batches, but an epoch has \2; give fewer, or trainer.check_val_every_n_epoch=null to count on over the epochs",
    ),
)


# the user's classes in the models that this process has loaded, by their keys
loaded_parts: dict[str, str] = {}


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


def exit_status_of(
    error: BaseException, states: Path | None = None, own: Mapping[str, str] | None = None
) -> ExitStatus:
    """The exit status that belongs to an exception.

    `states`: the folder of the run's resume states; `own`: the classes that are the user's, by their keys, by default
    those of the models that this process has loaded.
    """
    own = own or loaded_parts
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Stopped):
        saved = checkpoint_files.resume_states(states) if states else []
        what = (
            f", the state of step {checkpoint_files.step_and_stage(saved[0])[0]:,} is saved" if saved else ""
        )
        return ExitStatus("KILLED", error.exit_code, f"{error.name}: stopped{what}", trace)
    if isinstance(error, RegenteError):
        return ExitStatus("FAILED", error.exit_code, str(error), trace)
    if isinstance(error, RuntimeError | MemoryError | ImportError | OSError) and OUT_OF_MEMORY.search(
        f"{type(error)} {error}"
    ):
        return ExitStatus("FAILED", MachineError.exit_code, out_of_memory(error), trace)
    if isinstance(error, RuntimeError) and "returned nan values" in str(error):  # trainer.detect_anomaly
        return ExitStatus("FAILED", DivergedError.exit_code, f"the gradient is not finite: {error}", trace)
    if problem := metric_never_logged(error) or _known_problem(error, own):
        return ExitStatus("FAILED", ConfigError.exit_code, str(problem), trace)
    if line := line_of_user_code(error, own):
        return ExitStatus("FAILED", 1, f"{line}: {_in_one_line(error, line)}", trace)
    *_, (innermost, number) = [(__file__, 0), *_frames(error)]
    if own and not Path(innermost).resolve().is_relative_to(PACKAGE):
        what = f"{_in_one_line(error)} (at {Path(innermost).name}:{number}; own parts: {_places(own)})"
        return ExitStatus("FAILED", 1, what, trace)
    return ExitStatus("FAILED", 1, f"{trace}\n{FAULT}", trace)


def own_parts(config: dict[str, Any]) -> dict[str, str]:
    """The classes in a config that are not Regente's, torch's or Lightning's, by the keys of their parts."""
    nodes = {key: config.get(key) for key in ("task", "model", "data", "optimizer", "scheduler")}
    nodes |= {f"callbacks.{name}": node for name, node in (config.get("callbacks") or {}).items()}
    named = {key: str(node.get("_target_")) for key, node in nodes.items() if node}
    return {key: target for key, target in named.items() if target.partition(".")[0] not in LIBRARIES}


def _places(own: Mapping[str, str]) -> str:
    """`KEY FILE:LINE` of each class, its name where the source does not tell."""
    places = []
    for key, target in own.items():
        place = target
        with suppress(TargetNotFound, SyntaxError):
            found = read(target).found
            if found and isinstance(found.node, ast.ClassDef):
                place = f"{os.path.relpath(found.module.file)}:{found.node.lineno}"
        places.append(f"{key} {place}")
    return ", ".join(places)


def metric_never_logged(error: BaseException) -> Problem | None:
    """The problem behind Lightning's errors about a monitored metric that the task does not log; none for others."""
    found = MONITORED.search(str(error))
    if found is None:
        return None
    logged = sorted(set(re.findall(r"[^\s'`,]+", found[2])) - {"epoch", "step"})
    close = get_close_matches(found[1], logged, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Problem(f"monitor.metric={found[1]}", f"never logged; {hint}logged: {', '.join(logged)}")


def _known_problem(error: BaseException, own: Mapping[str, str]) -> Problem | None:
    """The setting behind an error of a library about what the user asked for; none for others."""
    for pattern, where, what in KNOWN:
        if isinstance(error, RuntimeError | ValueError) and (found := pattern.search(str(error))):
            return Problem(where, found.expand(what))
    # Lightning's word for a request that it refuses
    if type(error).__name__ != "MisconfigurationException" or line_of_user_code(error, own):
        return None
    where = f" (own parts: {_places(own)})" if own else ""
    return Problem("", f"{_in_one_line(error).partition(': ')[2]}{where}")


def out_of_memory(error: BaseException) -> str:
    """One line for torch's ten, with the settings to lower, or the limit to raise."""
    if (limit := memory_limit()) and "CUDA" not in str(error):
        return f"out of memory: {limit}"
    if isinstance(error, ImportError | OSError):
        return f"out of memory: {error}; end other programs"
    size = re.search(r"(?i)tried to allocate ([\d.]+ \w+)", str(error))
    wanted = f" ({size[1]} more were needed)" if size else ""
    where = "" if isinstance(error, MemoryError) or "CPU" in str(error) else " on the device"
    return (
        f"out of memory{where}{wanted}; lower data.batch_size, "
        "or keep it with trainer.on_oom=halve, or trainer.precision=bf16"
    )


def memory_limit(least: float = math.inf) -> str:
    """What the shell allows this process, and how to raise it; empty where that is `least` bytes or more."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY or allowed >= least:
        return ""
    return f"ulimit -v allows {allowed / 1e9:.1f} GB; raise it: ulimit -v unlimited"


def line_of_user_code(error: BaseException, own: Mapping[str, str]) -> str:
    """`FILE:LINE` of the innermost frame in the user's own code, empty if there is none.

    That is outside of Python and its packages, or in an installed package of one of the `own` parts.
    """
    packages = {target.partition(".")[0] for target in own.values()}
    found, installed = "", ""
    for name, line in _frames(error):
        file = Path(name)
        if not file.is_file() or (real := file.resolve()).is_relative_to(PACKAGE):
            continue
        if not is_installed(real):
            found = f"{file}:{line}"
        elif any(f"-packages/{each}/" in real.as_posix() for each in packages):
            installed = f"{file}:{line}"
    return found or installed


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    """File and line of each frame, the innermost last; those of a DataLoader's worker stand in the message."""
    yield from ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__))
    if WORKER in str(error):
        yield from ((name, int(line)) for name, line in re.findall(r'File "(.+?)", line (\d+)', str(error)))


def _in_one_line(error: BaseException, place: str = "") -> str:
    """Type and message of an error; where it has none, the line at its `place`."""
    text = " ".join(str(error).split())
    if WORKER in text:
        return f"{str(error).strip().splitlines()[-1]} (in a worker of the DataLoader)"
    if not text and place:
        file, _, line = place.rpartition(":")
        text = linecache.getline(file, int(line)).strip()
    return f"{type(error).__name__}: {text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}"


def say(ending: ExitStatus, *, debug: bool = False) -> None:
    """Print the message of an exit status to stderr, if it has one; with `debug` the traceback."""
    text = ending.trace if debug and ending.trace else ending.message
    if text:
        print(text.rstrip(), file=sys.stderr)  # noqa: T201
