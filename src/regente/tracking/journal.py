"""The journal: what a run tells the tracking store, one JSON object a line, appended and never changed.

Kinds of lines:
    start     experiment, name, params, tags
    resume    number (1, 2, ...), tags, params; the run goes on after an end, or after a death without one
    metrics   step, values
    params    values
    tags      values
    dataset   name, source, digest, splits
    artifact  path (a file or folder), to (a folder of the run's artifacts, or "")
    result    what train.py returns, once the best weights are tested
    view      monitor (metric and mode): the sweep's comparison is to be written
    end       status (FINISHED, FAILED or KILLED)
Each has `time`, milliseconds since the epoch.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


class Journal:
    """Appends lines with one system call each, so that a killed process leaves at most a torn last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = False  # whether the last line is not whole
        self.problem = ""  # why a line is missing: a full disk does not end a training
        cut_torn_line(path)
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: str, **content: Any) -> None:
        """Append a line."""
        line = {"kind": kind, "time": time.time_ns() // 1_000_000, **content}
        data = b"\n" * self.torn + json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            self.torn = os.write(self.file, data) < len(data)
        except OSError as error:
            self.problem = self.problem or error.strerror or str(error)
        if self.torn:
            self.problem = self.problem or "no room for a whole line"

    def close(self) -> None:
        """Release the file."""
        os.close(self.file)


def cut_torn_line(path: Path) -> None:
    """Take off a last line that was never finished, so that the next one is not glued to it."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def read(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines from a byte offset on, and the offset behind them.

    A torn last line is left for later; one between others, as a full disk leaves it, is passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found, offset + len(whole)
