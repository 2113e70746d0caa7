"""Settings of a part that its class does not take, because Regente itself carries them out."""

import re
from typing import Any

from regente.config.limits import Limit, is_number, is_whole, one_of

_boolean = Limit(lambda v: isinstance(v, bool), "needs true or false", (True, False))
_count = Limit(lambda v: is_whole(v) and v >= 0, "needs a whole number >= 0")
GROUP_KEYS = {  # of a parameter group, beside the settings of the optimizer
    "names": Limit(
        lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(each, str) for each in v)),
        "needs patterns of names, such as ['*.bias', 'backbone.*']",
    ),
    "dims": _count,
    "lr_factor": Limit(lambda v: is_number(v) and v >= 0, "needs a number >= 0"),
}
OWN_SETTINGS = {
    "model": {"compile": _boolean},
    "scheduler": {
        "interval": one_of("epoch", "step"),
        "frequency": Limit(lambda v: is_whole(v) and v >= 1, "needs a whole number >= 1"),
    },
    "optimizer": {
        "groups": Limit(
            lambda v: (
                v is None or (isinstance(v, dict) and all(isinstance(each, dict) for each in v.values()))
            ),
            "needs groups by name, each with names or dims of its parameters",
        ),
        "layer_decay": Limit(
            lambda v: v is None or (is_number(v) and 0 < v <= 1), "must be above 0 and at most 1"
        ),
    },
    "trainer": {
        "max_minutes": Limit(lambda v: v is None or (is_number(v) and v > 0), "needs a number > 0 or null"),
        "matmul_precision": one_of("highest", "high", "medium", None),
        "find_lr": _boolean,
        "find_batch_size": _boolean,
        "steps_per_call": Limit(
            lambda v: v == "auto" or (is_whole(v) and v >= 1), "needs a whole number >= 1 or auto", ("auto",)
        ),
        "profile_calls": _count,
        "endpoint": Limit(
            lambda v: v is None or (isinstance(v, str) and bool(re.fullmatch(r".+:\d{1,5}", v))),
            "needs HOST:PORT, an address of the first machine",
        ),
        "on_nan": one_of("stop", "skip_step", "rollback"),
        "on_oom": one_of("stop", "halve", "halve_batchnorm"),
        "max_restarts": _count,
    },
}


def without_own_settings(part: str, node: dict[str, Any]) -> dict[str, Any]:
    """A part's settings as its class takes them."""
    own = OWN_SETTINGS.get(part, {})
    return {key: value for key, value in node.items() if key not in own}
