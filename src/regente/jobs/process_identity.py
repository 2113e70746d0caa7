"""Whose run it is, and whether that process still lives: never a question of clocks."""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

BEAT = 10.0  # seconds between signs of life, for those on other machines
LEASE = 2.5 * BEAT  # seconds without one after which what runs on another machine is taken for dead


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that no other one, before or after, on this host or another, can be taken for."""

    host: str
    boot: str  # changes with every start of the machine
    pid: int
    started: str  # since boot, in the kernel's ticks; pids are used again, this is not

    def alive(self) -> bool | None:
        """Whether it runs; nothing if it is on another host, where one cannot see it."""
        if self.host != socket.gethostname():
            return None
        return self.boot == boot_id() and self.started == started(self.pid)


def process_identity(pid: int) -> ProcessIdentity:
    """The owner that a running process is."""
    return ProcessIdentity(socket.gethostname(), boot_id(), pid, started(pid))


def start_heartbeat(file: Path) -> None:
    """Touch a file at each beat, as long as this process lives."""

    def touch() -> None:
        while True:
            time.sleep(BEAT)
            with suppress(OSError):
                os.utime(file)

    threading.Thread(target=touch, daemon=True).start()


def has_heartbeat(file: Path) -> bool:
    """Whether a file is touched within a lease; what its times are, by whose clock, does not matter."""
    before, end = file.stat().st_mtime_ns, time.monotonic() + LEASE
    while time.monotonic() < end:
        time.sleep(1)
        with suppress(OSError):
            if file.stat().st_mtime_ns != before:
                return True
    return False


@cache
def boot_id() -> str:
    """This boot of this machine."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.is_file() else str(int(psutil.boot_time()))


def started(pid: int) -> str:
    """When a process started; empty if there is none of that number, or only its remains."""
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
