"""A job in its slot: `python -m regente.sweeps.slot JOB_DIR`, or forked from a warm server. Its output goes to files."""

import os
import signal
import sys
from pathlib import Path

from regente.config.interpolation import resolve
from regente.errors import RegenteError, Stopped
from regente.jobs.fast_exit import FastExit
from regente.jobs.job import open_job
from regente.jobs.streams import forgive
from regente.training.launch import launch
from regente.training.worker import DRIVER, follow_driver

OUTPUT, ERRORS = "output.txt", "errors.txt"  # in the job's directory


def run_in_slot(path: Path) -> int:
    """Run the job in a directory and return its exit code; several ranks as processes of its own."""
    redirect(os.devnull, 0, flags=os.O_RDONLY)
    redirect(path / OUTPUT, 1)
    redirect(path / ERRORS, 2)
    forgive()
    if DRIVER in os.environ:
        follow_driver()
    try:
        job = open_job(path)
        return launch(job, resolve(job.config, ["trainer"]), alone=True)
    except RegenteError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    except Stopped as error:
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def last_line(path: Path) -> str:
    """The last thing that a job said on stderr."""
    file = path / ERRORS
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines() if file.is_file() else []
    return lines[-1] if lines else ""


def redirect(path: str | Path, *numbers: int, flags: int = os.O_WRONLY | os.O_CREAT | os.O_APPEND) -> None:
    """Make file descriptors lead to a file."""
    file = os.open(path, flags, 0o644)
    for number in numbers:
        os.dup2(file, number)
    os.close(file)


if __name__ == "__main__":
    leave = FastExit()
    leave(run_in_slot(Path(sys.argv[1])))
