"""A job in its slot: `python -m regente.sweeps.slot JOB_DIR`, or a fork of the fork server. Its output goes to files."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from regente.jobs.driver import follow_driver
from regente.jobs.exit_status import FAULT
from regente.jobs.fast_exit import FastExit
from regente.jobs.found_files import open_regular
from regente.jobs.streams import ignore_write_errors
from regente.jobs.trust import run_handed_over
from regente.tracking.shipping_state import read_state
from regente.training.worker import run_to_exit_code

STDOUT, STDERR = "stdout.log", "stderr.log"  # in the job's directory
TAIL = 10_000  # bytes


def run_in_slot(path: Path) -> int:
    """Run the job in a directory and return its exit code; several ranks run as processes of their own."""
    redirect(os.devnull, 0, flags=os.O_RDONLY)
    redirect(path / STDOUT, 1)
    redirect(path / STDERR, 2)
    ignore_write_errors()
    follow_driver()
    return run_to_exit_code(path)


def start_in_slot(path: Path, env: dict[str, str], cwd: Path | None = None) -> "subprocess.Popen[bytes]":
    """Start the job in a directory as a process with a session of its own."""
    command = [sys.executable, "-m", "regente.sweeps.slot", str(path)]
    return subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True)


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that leads its group, if it still runs; SIGKILL goes to the whole group."""
    with suppress(OSError):
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def last_line(path: Path) -> str:
    """The last line that a job wrote to stderr, the error where a traceback is above it; else why the store refused it."""
    with suppress(OSError), open_regular(path / STDERR) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        if found := [line for line in lines if line != FAULT][-1:]:
            return found[0]
    return str(read_state(path)["refused"])


def redirect(path: str | Path, *numbers: int, flags: int = os.O_WRONLY | os.O_CREAT | os.O_APPEND) -> None:
    """Make file descriptors refer to a file."""
    file = os.open(path, flags, 0o644)
    for number in numbers:
        os.dup2(file, number)
    os.close(file)


if __name__ == "__main__":
    leave = FastExit()
    leave(run_handed_over(Path(sys.argv[1]), run_in_slot))
