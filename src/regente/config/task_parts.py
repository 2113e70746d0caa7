"""Which parts of a config a task is given: those that its constructor takes."""

from collections.abc import Mapping
from typing import Any

from regente.config.signatures import Signature, TargetNotFound, read

PARTS = ("model", "optimizer", "scheduler")  # groups of which there may be none
GIVEN = (*PARTS, "monitor")
SUPERVISED = "regente.tasks.supervised.Supervised"


def given_to(task: Mapping[str, Any]) -> list[str]:
    """The parts that the constructor of a task takes, unless its own node has them.

    All of them where the source does not tell, or its base class is Regente's and the constructor takes anything.
    """
    signature = signature_of(task)
    if signature is None or signature.kind == "unknown" or (signature.open and is_supervised(task)):
        taken = list(GIVEN)
    else:
        taken = [name for name in GIVEN if name in signature.parameters]
    return [name for name in taken if name not in task]


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
