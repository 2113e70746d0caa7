"""stdout and stderr that ignore write errors: a closed pipe or a full disk does not end a run; texts of runs made harmless."""

import os
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO


class SafeStream:
    """A stream that writes nothing any more after the first error, or if it was closed from the start."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or _nowhere()
        self.redact: Callable[[str], str] | None = None

    def write(self, text: str) -> int:
        try:
            # click tries bytes, which a text stream has to refuse
            masked = self.redact(text) if self.redact and isinstance(text, str) else text
            return self.stream.write(masked)
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


def redact_output(redact: Callable[[str], str]) -> None:
    """Mask the secrets in what this process prints from now on into files and pipes, which are kept."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SafeStream) and not stream.isatty():
            stream.redact = redact


def printable(text: str) -> str:
    """The text without control characters, which a name in a file or run may contain."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def plain(words: str) -> str:
    """Text of a run on one line: a blank for each control character and line break."""
    return "".join(each if each.isprintable() else " " for each in words)


def markdown(words: str) -> str:
    """Text of a run for Markdown, without the meaning of any of its characters."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", plain(words))


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def ignore_write_errors() -> None:
    """Let stdout and stderr of this process ignore write errors."""
    sys.stdout = SafeStream(sys.stdout)
    sys.stderr = SafeStream(sys.stderr)
