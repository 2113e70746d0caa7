"""A server that has imported what a job needs and forks jobs: `python -m regente.sweeps.fork_server FD MODULE...`.

It does not use CUDA, which does not survive a fork, and it starts no threads. It ends when the connection FD is closed,
because the driver has ended. Its jobs notice that end by themselves.

The forkserver of `multiprocessing` does not serve here. It runs the user's main program again in each job, so that a
program that calls `regente.sweep` without `if __name__ == "__main__"` fails. Its `start` blocks until the server has
imported everything. A Ctrl-C during these imports ends it. It is one per process, so a user's program shares it.
"""

import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from regente.jobs.driver import follow_driver
from regente.jobs.exit_status import exit_code
from regente.jobs.fast_exit import FastExit
from regente.jobs.imports import without_garbage_collection
from regente.sweeps.slot import run_in_slot, send_signal
from regente.training import launch, start_ranks
from regente.training.worker import run_to_exit_code

IMPORTS = [
    *("regente.training.fit", "regente.config.compose", "torchvision"),
    *("regente.tracking.run_artifacts", "regente.tracking.provenance"),
]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ForkServer:
    """The driver's end of the server: it starts jobs and reports their ends."""

    def __init__(self, log: Path, modules: Sequence[str]) -> None:
        self.pids: dict[Path, int] = {}  # of running jobs, by directory; 0 until the job is forked
        self.pending: dict[Path, int] = {}  # signals for jobs that are not forked yet
        self.connection, theirs = Pipe()
        with theirs:
            self.process = self._start_process(theirs, log, modules)

    def _start_process(
        self, connection: "Connection[Any, Any]", log: Path, modules: Sequence[str]
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "regente.sweeps.fork_server", str(connection.fileno()), *modules]
        with log.open("ab") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **ONE_THREAD},
                pass_fds=[connection.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver
            )

    @property
    def alive(self) -> bool:
        """Whether it can start jobs."""
        return self.process.poll() is None

    def start(
        self, path: Path, env: dict[str, str], threads: int, run: Callable[[Path], int] = run_in_slot
    ) -> None:
        """Start the job in a directory, or another function of it; returns at once, also while the server still imports."""
        self.pids[path] = 0
        with suppress(OSError):  # `poll` notices that the server has ended
            self.connection.send((path, env, threads, run))

    def poll(self, timeout: float) -> list[tuple[Path, int]]:
        """The directories of jobs that have ended, with exit codes; when the server ends, all of its jobs end."""
        ended = []
        try:
            ready = self.connection.poll(timeout)
            while ready:
                path, pid, code = self.connection.recv()
                if code is None:
                    self.pids[path] = pid
                    if number := self.pending.pop(path, None):
                        self.signal(path, number)
                else:
                    del self.pids[path]
                    ended.append((path, code))
                ready = self.connection.poll(0)
        except (EOFError, OSError):
            ended += self.close()
        return ended

    def signal(self, path: Path, number: int) -> None:
        """Send a signal to a job, as soon as it is forked; SIGKILL goes to all processes of its group."""
        if pid := self.pids.get(path):
            send_signal(pid, number)
        elif path in self.pids:
            self.pending[path] = number
            if not any(self.pids.values()) and self.pending.keys() == self.pids.keys():
                self.process.kill()  # it still imports, and no job waits for it any more

    def close(self) -> list[tuple[Path, int]]:
        """End the server, and with SIGKILL the jobs that still run; returns these jobs with their exit codes."""
        killed = [(path, 128 + signal.SIGKILL) for path in self.pids]
        for path, _ in killed:
            self.signal(path, signal.SIGKILL)
        self.pids.clear()
        self.pending.clear()
        self.connection.close()
        self.process.kill()
        self.process.wait()
        return killed


def preload(modules: Sequence[str]) -> None:
    """Import what jobs need; garbage collection in the jobs leaves it alone."""
    with without_garbage_collection(), warnings.catch_warnings(action="ignore"):
        for name in [*IMPORTS, *modules]:
            with suppress(ImportError):  # the job reports it
                importlib.import_module(name)
        gc.collect()


def serve(driver: "Connection[Any, Any]", leave: FastExit) -> None:
    """Fork jobs until the driver closes its end of the connection."""
    woken, wake = socket.socketpair()  # a byte arrives when a job ends
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    jobs: dict[int, Path] = {}
    while True:
        ready = wait([driver, woken])
        if driver in ready:
            try:
                path, env, threads, run = driver.recv()
            except (EOFError, OSError):
                return
            if (pid := os.fork()) == 0:
                for each in (driver, woken, wake):
                    each.close()
                leave(_run_forked(path, env, threads, run))
            jobs[pid] = path
            _report(driver, path, pid, None)
        if woken in ready:
            woken.recv(1 << 16)
            for pid, code in _ended(jobs):
                _report(driver, jobs.pop(pid), pid, code)


def _report(driver: "Connection[Any, Any]", *message: Any) -> None:
    with suppress(OSError):  # the driver has ended, which the next `recv` notices
        driver.send(message)


def _ended(jobs: dict[int, Path]) -> Iterator[tuple[int, int]]:
    for pid in list(jobs):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            send_signal(
                pid, signal.SIGKILL
            )  # to its group: a killed job may leave workers of its data loaders
            yield pid, exit_code(os.waitstatus_to_exitcode(status))


def _run_forked(path: Path, env: dict[str, str], threads: int, run: Callable[[Path], int]) -> int:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    import torch

    torch.set_num_threads(threads)
    fork_programs()
    return run(path)


def fork_programs() -> None:
    """From here on this process forks its ranks; as programs they would import torch again."""

    def fork(function: Callable[..., int]) -> Any:
        return lambda *args, **options: ForkedProcess(partial(function, *args, **options))

    launch.start_program = fork(_run_program)


class ForkedProcess:
    """A process forked from this one, in a session of its own, with the methods of `Popen` that Regente uses."""

    def __init__(self, target: Callable[[], int]) -> None:
        with warnings.catch_warnings(
            action="ignore"
        ):  # of threads: only the one that watches the driver runs
            self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            code = 70
            try:
                os.setsid()
                code = target()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else int(error.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code once it has ended; negative after a signal."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """The exit code, after its end; negative after a signal."""
        code = self._wait(0)
        assert code is not None
        return code

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)


def _run_program(name: str, words: list[str], env: dict[str, str]) -> int:
    os.environ.clear()
    os.environ.update(env)
    start_ranks.METHOD = "fork"
    follow_driver()
    path, debug = Path(words[0]), "--debug" in words
    if name == "regente.training.start_ranks":
        return start_ranks.main(path, debug=debug)
    return run_to_exit_code(path, debug=debug)


if __name__ == "__main__":
    exit_ = FastExit()
    sys.argv, arguments = ["regente"], sys.argv[1:]
    connection: "Connection[Any, Any]" = Connection(int(arguments[0]))
    os.set_inheritable(connection.fileno(), False)
    preload(arguments[1:])
    serve(connection, exit_)
    exit_(0)
