"""Which parts of a config a task is given: those that its constructor takes."""

from collections.abc import Mapping
from typing import Any

from regente.config.signatures import Signature, TargetNotFound, read

PARTS = ("model", "optimizer", "scheduler")  # groups of which there may be none
GIVEN = (*PARTS, "monitor")
OPTIONAL = ("loss", "metrics")  # given where the config has them
SUPERVISED = "regente.tasks.supervised.Supervised"


def given_to(task: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> list[str]:
    """The parts that the constructor of a task takes, unless its own node has them; `config`: with OPTIONAL ones of it.

    All of them where the source does not tell, or its base class is Regente's and the constructor takes anything.
    """
    names = [*GIVEN, *(part for part in OPTIONAL if has(config or {}, part))]
    signature = signature_of(task)
    if signature is None or signature.kind == "unknown" or (signature.open and is_supervised(task)):
        taken = names
    else:
        taken = [name for name in names if name in signature.parameters]
    return [name for name in taken if name not in task]


def has(config: Mapping[str, Any], part: str) -> bool:
    """Whether the config has a loss, or metrics."""
    return bool(config.get(part)) and not is_none(config[part])


def is_supervised(task: Mapping[str, Any]) -> bool:
    """Whether the class of a task derives from `regente.Supervised`, as far as its source tells."""
    signature = signature_of(task)
    return signature is None or signature.derives_from(SUPERVISED) is not False


def signature_of(task: Mapping[str, Any]) -> Signature | None:
    """The signature of a task's class; None where there is none, which the check reports."""
    try:
        return read(str(task.get("_target_")))
    except (TargetNotFound, SyntaxError):
        return None


def is_none(node: Any) -> bool:
    """Whether the node of one of PARTS says that there is none, as `model=none` does."""
    return isinstance(node, Mapping) and "_target_" in node and node["_target_"] is None
