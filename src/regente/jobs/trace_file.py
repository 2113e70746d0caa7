"""Reads the trace of a run; training/callbacks/trace.py writes it."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from regente.jobs.found_files import parse_json, read_text
from regente.jobs.job import fits

TRACE = "trace.jsonl"  # in the job directory, and an artifact
KEYS = {
    "step": int,
    "losses": list[float],
    "weights": str,
    "epoch": int,
    "metrics": dict[str, float],
}
Line = dict[str, Any]
"""step, its call's losses (the last one is the step's), weights (a hash), epoch and metrics (at its end)."""


def read_trace(file: Path) -> Sequence[Line]:
    """The valid lines of a trace; none if there is no such file, or it is not a trace."""
    lines: list[Line] = []
    with suppress(OSError, UnicodeDecodeError):
        for text in read_text(file).splitlines():
            with suppress(ValueError, RecursionError):  # a damaged last line
                line = parse_json(text)
                if (
                    isinstance(line, dict)
                    and "step" in line
                    and all(fits(KEYS.get(k), v) for k, v in line.items())
                ):
                    lines.append(line)
    return lines
