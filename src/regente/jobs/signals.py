"""Ctrl-C and the other signals that end a run. During a training `training/callbacks/stop_on_signal.py` handles them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from regente.errors import Stopped

# Slurm sends SIGUSR1 some time before the end of a job, where its --signal asks for it
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """In this context the first of SIGNALS raises `Stopped`; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        confirm_interrupt(number)
        raise Stopped(number)

    before = {each: signal.signal(each, stop) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def confirm_interrupt(number: int) -> None:
    """Print on a terminal that Ctrl-C was received."""
    if number == signal.SIGINT and os.isatty(2):
        os.write(2, b"\nstopping; press Ctrl-C again to end at once\n")
