"""stdout and stderr that may go away: a closed pipe or a full disk behind them does not end a run."""

import os
import sys
from typing import Any, TextIO


class Forgiving:
    """A stream that falls silent when nobody reads it any more, or when it was closed from the start."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or _nowhere()

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self.stream = _nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.stream = _nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def printable(text: str) -> str:
    """The text without what a terminal would obey: a name out of a file or a run may hold such characters."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def forgive() -> None:
    """Make both of the process's streams forgiving."""
    sys.stdout = Forgiving(sys.stdout)
    sys.stderr = Forgiving(sys.stderr)
