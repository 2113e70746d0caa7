"""Which lines of a journal go to the store in one request: a request costs ten times what a value in it costs."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from regente.tracking.run_artifacts import best_values

VALUES = ("metrics", "params", "tags")  # kinds of lines
Line = dict[str, Any]


def batches(lines: list[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The lines in the order of the requests, each request with the kind of its lines."""
    for kind, group in groupby(_together([*_with_values(lines)]), key=_kind):
        yield kind, list(group)


def _with_values(lines: list[Line]) -> Iterator[Line]:
    """The lines, and the values in those of start and result as lines of their own."""
    for line in lines:
        yield line
        if line["kind"] == "start":
            yield {"kind": "params", "values": line["params"]}
        elif line["kind"] == "result":
            yield {**line, "kind": "metrics", "step": 0, "values": best_values(line)}


def _kind(line: Line) -> str:
    """The kind of a line; what goes to the store in one request has one kind."""
    return "values" if line["kind"] in VALUES else str(line["kind"])


def _together(lines: list[Line]) -> Iterator[Line]:
    """The lines, with the values between two attempts or ends before the rest, so that one request takes them all."""
    for _, part in groupby(lines, key=lambda line: line["kind"] in ("start", "resume", "end")):
        yield from sorted(part, key=lambda line: line["kind"] not in VALUES)


def smaller(kind: str, lines: list[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The same lines in smaller pieces, each with its kind; nothing where there are none."""
    if len(lines) > 1:
        yield from ((kind, [line]) for line in lines)
        return
    (line,) = lines
    if kind == "resume" and line["params"]:
        yield kind, [{**line, "params": {}}]
        yield "values", [{"kind": "params", "values": line["params"]}]
    elif len(values := line.get("values", {})) > 1:
        yield from ((kind, [{**line, "values": {key: value}}]) for key, value in values.items())
