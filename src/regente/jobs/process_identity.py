"""Which process runs a job, and whether it is alive. No answer depends on a clock."""

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

HEARTBEAT = 10.0  # seconds between heartbeats, which other machines look at
LEASE = 2.5 * HEARTBEAT  # seconds without a heartbeat after which a process on another machine counts as dead


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, distinct from every other process before or after it, on this machine or another."""

    host: str
    boot: str  # see boot_id
    pid: int
    # time since boot in the kernel's ticks: pids are used again; empty if it had ended when it was looked at
    started: str

    def alive(self) -> bool | None:
        """Whether the process runs; None if it is on another machine, where its pid means nothing.

        The boot decides which machine it is, since a host name may change while the machine runs. Another boot on
        this host name is an earlier one, unless it is another container of the same boot.
        """
        if self.boot == boot_id():
            return self.started != "" and self.started == started(self.pid)
        other_container = self.boot.partition(" ")[0] == boot_id().partition(" ")[0]
        return None if self.host != socket.gethostname() or other_container else False


def process_identity(pid: int) -> ProcessIdentity:
    """The identity of a running process of this machine."""
    return ProcessIdentity(socket.gethostname(), boot_id(), pid, started(pid))


def start_heartbeat(file: Path) -> None:
    """Touch a file every HEARTBEAT seconds as long as this process is alive."""

    def touch() -> None:
        while True:
            time.sleep(HEARTBEAT)
            with suppress(OSError):
                os.utime(file)

    threading.Thread(target=touch, daemon=True).start()


def has_heartbeat(file: Path) -> bool:
    """Whether a file is touched within LEASE seconds; only a change counts, since clocks of machines differ."""
    before, end = file.stat().st_mtime_ns, time.monotonic() + LEASE
    while time.monotonic() < end:
        time.sleep(1)
        with suppress(OSError):
            if file.stat().st_mtime_ns != before:
                return True
    return False


@cache
def boot_id() -> str:
    """This boot of this machine and, on Linux, its pid namespace: containers of one boot do not share their pids."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    with suppress(OSError, subprocess.SubprocessError):  # macOS
        command = ["sysctl", "-n", "kern.bootsessionuuid"]
        if boot := subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=5).strip():
            return boot
    return f"{socket.gethostname()}-{int(psutil.boot_time())}"


def started(pid: int) -> str:
    """When a process started; empty if there is no such process, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if stat[0] in "ZX" else stat[19]
    except OSError:
        pass
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return ""
