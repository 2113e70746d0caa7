"""The journal: everything that a run logs, one JSON object a line; lines are appended and never changed.

Kinds of lines:
    start     experiment, name, params, tags
    resume    number (1, 2, ...), tags, params; the run was interrupted or had ended, and continues
    metrics   step, values
    params    values
    tags      values
    dataset   name, source, digest, splits
    artifact  path (a file or folder in the job directory), to (a folder of the run's artifacts, or "")
    result    the content of result.json, after the test of the best weights
    description    text: Markdown for the page of the run
    end       status (FINISHED, FAILED or KILLED)
Each has `time`, milliseconds since the epoch.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from regente.jobs.found_files import open_regular, parse_json

KINDS = [
    "start",
    "resume",
    "metrics",
    "params",
    "tags",
    "dataset",
    "artifact",
    "result",
    "description",
    "end",
]


class Journal:
    """Appends lines with one system call each: a killed process leaves at most an incomplete last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = False  # whether the last line is incomplete
        self.problem = ""  # why a line is missing; a full disk does not end a training
        cut_torn_line(path)
        # not a link, and no waiting where somebody has made a pipe of this name
        self.file = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644
        )

    def write(self, kind: str, **content: Any) -> None:
        """Append a line."""
        line = {"kind": kind, "time": time.time_ns() // 1_000_000, **content}
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False)
        # no store takes what a file name that is not UTF-8 holds
        data = b"\n" * self.torn + text.encode(errors="replace") + b"\n"
        try:
            self.torn = os.write(self.file, data) < len(data)
        except OSError as error:
            self.problem = self.problem or error.strerror or str(error)
        if self.torn:
            self.problem = self.problem or "no space for a whole line"

    def artifact(self, path: Path, to: str) -> None:
        """Append the request to log a file or folder of the job directory, which may be moved before that is done."""
        self.write("artifact", path=os.path.relpath(path, self.path.parent), to=to)

    def close(self) -> None:
        """Release the file."""
        os.close(self.file)


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, so that the next line does not continue it."""
    if not path.is_file():
        return
    with open_regular(path) as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def read(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The complete lines from a byte offset on, and the offset after them.

    An incomplete last line is left for later. An incomplete line before others, which a full disk leaves, is skipped.
    """
    try:
        with open_regular(path) as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        with suppress(ValueError, RecursionError):
            content = parse_json(line.decode())
            if isinstance(content, dict) and isinstance(content.get("kind"), str):
                found.append(content)
    return found, offset + len(whole)
