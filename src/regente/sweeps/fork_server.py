"""A server that has imported what a job needs and forks it: `python -m regente.sweeps.fork_server FD`.

It never touches CUDA, which does not survive a fork, and starts no threads. Over the socket FD come requests, one JSON
object a line: the job's directory, its environment, its number of threads. Back go the process id of each job, and at
its end the exit code. When the socket closes, because the driver is gone, it ends; its jobs notice by themselves.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from regente.jobs.fast_exit import FastExit
from regente.jobs.job import Job
from regente.sweeps.slot import redirect, run_in_slot
from regente.training import launch, start_ranks, worker

HEAVY = [
    *("regente.training.fit", "regente.training.worker", "regente.config.compose", "torchvision"),
    *(
        "mlflow.tracking",
        "mlflow.pytorch",
        "mlflow.store.tracking.sqlalchemy_store",
        "regente.tracking.shipper",
    ),
    *(
        "regente.tracking.sync",
        "regente.tracking.run_artifacts",
        "regente.tracking.provenance",
        "matplotlib.pyplot",
    ),
]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ForkServer:
    """The driver's end: it asks for jobs and hears of their ends."""

    def __init__(self, log: Path, modules: Sequence[str]) -> None:
        self.pids: dict[str, int] = {}  # of jobs that run, by directory; 0: asked for, not forked yet
        self.told: dict[str, int] = {}  # signals for jobs that are not forked yet
        self.socket, theirs = socket.socketpair()
        self.rest = b""  # of a line that has not come whole
        self.process = self._process(theirs, log, modules)
        theirs.close()

    def _process(
        self, channel: socket.socket, log: Path, modules: Sequence[str]
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "regente.sweeps.fork_server", str(channel.fileno()), *modules]
        with log.open("ab") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **ONE_THREAD},
                pass_fds=[channel.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def start(self, path: Path, env: dict[str, str], threads: int) -> None:
        """Ask for a job; returns at once, also while the server still imports."""
        self.pids[str(path)] = 0
        line = json.dumps({"job": str(path), "env": env, "threads": threads}).encode() + b"\n"
        with suppress(OSError):  # a dead server is noticed by `poll`
            self.socket.sendall(line)

    def poll(self, timeout: float) -> list[tuple[str, int]]:
        """The directories of jobs that have ended, with exit codes; a dead server takes all of its jobs with it."""
        if not select.select([self.socket], [], [], timeout)[0]:
            return []
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return self._dead()
        *lines, self.rest = (self.rest + data).split(b"\n")
        ended = []
        for line in map(json.loads, lines):
            if "pid" in line:
                self.pids[line["job"]] = line["pid"]
                if number := self.told.pop(line["job"], None):
                    self.signal(Path(line["job"]), number)
            else:
                del self.pids[line["job"]]
                ended.append((line["job"], line["code"]))
        return ended

    @property
    def alive(self) -> bool:
        """Whether it can be asked for jobs."""
        return self.process.poll() is None

    def signal(self, path: Path, number: int) -> None:
        """Send a signal to a job, as soon as it is forked; SIGKILL goes to all processes of its group."""
        if pid := self.pids.get(str(path)):
            with suppress(OSError):
                (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)
        elif str(path) in self.pids:
            self.told[str(path)] = number
            if not any(self.pids.values()) and self.told.keys() == self.pids.keys():
                self.process.kill()  # it still imports, and nobody waits for it any more

    def close(self) -> None:
        """End the server, and with SIGKILL the jobs that still run."""
        for path in list(self.pids):
            self.signal(Path(path), signal.SIGKILL)
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def _dead(self) -> list[tuple[str, int]]:
        ended = [(path, 128 + signal.SIGKILL) for path in self.pids]
        for path, _ in ended:
            self.signal(Path(path), signal.SIGKILL)
        self.pids.clear()
        self.told.clear()
        self.process.kill()
        self.process.wait()
        return ended


def preload(modules: Sequence[str]) -> None:
    """Import what jobs will need, and put it out of reach of their garbage collection."""
    gc.disable()
    with warnings.catch_warnings(action="ignore"):
        for name in [*HEAVY, *modules]:
            with suppress(ImportError):  # the job says it better
                importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.enable()


def serve(control: socket.socket, leave: FastExit) -> None:
    """Fork jobs until the driver is gone."""
    wakeup, tick = socket.socketpair()
    for end in (wakeup, tick):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(tick.fileno(), warn_on_full_buffer=False)
    jobs: dict[int, str] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([control, wakeup], [], [])
        if control in ready:
            data = control.recv(1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for request in map(json.loads, lines):
                pid = _fork(request, [control, wakeup, tick], leave)
                jobs[pid] = request["job"]
                _say(control, job=request["job"], pid=pid)
        if wakeup in ready:
            wakeup.recv(1 << 16)
            for pid, code in _ended(jobs):
                _say(control, job=jobs.pop(pid), code=code)


def _ended(jobs: dict[int, str]) -> list[tuple[int, int]]:
    ended = []
    for pid in jobs:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            ended.append((pid, code if code >= 0 else 128 - code))
            with suppress(OSError):  # what a killed job left of its group: workers of its data loaders
                os.killpg(pid, signal.SIGKILL)
    return ended


def _say(control: socket.socket, **line: Any) -> None:
    with suppress(OSError):  # the driver is gone, which the next `recv` says
        control.sendall(json.dumps(line).encode() + b"\n")


def _fork(request: dict[str, Any], sockets: list[socket.socket], leave: FastExit) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for each in sockets:
        each.close()
    os.environ.clear()
    os.environ.update(request["env"])
    import torch

    torch.set_num_threads(request["threads"])
    from regente.tracking import recorder

    recorder.start_shipper = ForkedShipper  # type: ignore[assignment]
    launch.start_program = ForkedProgram  # type: ignore[assignment]
    return leave(run_in_slot(Path(request["job"])))


class ForkedShipper:
    """What `start_shipper` makes, without the seconds of CPU that it takes to import MLflow."""

    def __init__(self, job: Job) -> None:
        with warnings.catch_warnings(
            action="ignore"
        ):  # of threads: this early there is one, which watches the driver
            self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                redirect(job.path / "shipper.log", 1, 2)
                from regente.tracking import shipper

                shipper.main(job.path)
                code = 0
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code once it has ended; any will do."""
        try:
            return None if os.waitpid(self.pid, os.WNOHANG) == (0, 0) else 0
        except ChildProcessError:  # asked before
            return 0


class ForkedProgram:
    """What `start_program` makes: the worker or the agent forked, as are its ranks, with torch and Lightning in them."""

    def __init__(self, name: str, words: list[str], env: dict[str, str]) -> None:
        with warnings.catch_warnings(action="ignore"):
            self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.setsid()
                os.environ.clear()
                os.environ.update(env)
                start_ranks.METHOD = "fork"
                worker.follow_driver()
                main = start_ranks.main if name == "regente.training.start_ranks" else worker.run
                code = main(Path(words[0]), debug="--debug" in words)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def send_signal(self, number: int) -> None:
        """Hand a signal on."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, below 0 after a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


if __name__ == "__main__":
    exit_ = FastExit()
    sys.argv, arguments = ["regente"], sys.argv[1:]
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    preload(arguments[1:])
    serve(channel, exit_)
    exit_(0)
