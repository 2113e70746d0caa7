"""Settings of a part that its class does not take, because they are Regente's to carry out."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FINDERS = {"find_lr": ("optimizer", "lr"), "find_batch_size": ("data", "batch_size")}
ON_NAN = ("stop", "skip_step", "rollback")
ON_OOM = ("stop", "halve", "halve_batchnorm")
MATMUL = ("highest", "high", "medium")


@dataclass(frozen=True)
class Limit:
    """What a value must be, and the words for it."""

    admits: Callable[[Any], bool]
    words: str
    listed: tuple[object, ...] = ()  # the values, where they are few


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(*values: str | None) -> Limit:
    null = " or null" if None in values else ""
    return Limit(lambda v: v in values, f"needs one of {', '.join(filter(None, values))}{null}", values)


FLAG = Limit(lambda v: isinstance(v, bool), "needs true or false", (True, False))
OURS = {
    "model": {"compile": FLAG},
    "trainer": {
        "max_minutes": Limit(lambda v: v is None or (_number(v) and v > 0), "needs a number > 0 or null"),
        "matmul_precision": _one_of(*MATMUL, None),
        "find_lr": FLAG,
        "find_batch_size": FLAG,
        "steps_per_call": Limit(
            lambda v: v == "auto" or (_whole(v) and v >= 1), "needs a whole number >= 1 or auto"
        ),
        "profile_calls": Limit(lambda v: _whole(v) and v >= 0, "needs a whole number >= 0"),
        "endpoint": Limit(
            lambda v: v is None or (isinstance(v, str) and bool(re.fullmatch(r".+:\d{1,5}", v))),
            "needs HOST:PORT, an address of the first machine",
        ),
        "on_nan": _one_of(*ON_NAN),
        "on_oom": _one_of(*ON_OOM),
        "max_restarts": Limit(lambda v: _whole(v) and v >= 0, "needs a whole number >= 0"),
    },
}


def theirs(part: str, node: dict[str, Any]) -> dict[str, Any]:
    """A part's settings without Regente's own."""
    return {key: value for key, value in node.items() if key not in OURS[part]}
