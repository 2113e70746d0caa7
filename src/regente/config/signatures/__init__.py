"""What the class or function behind a `_target_` takes, read from its source: nothing is imported.

modules.py      where modules lie, and which names they bind
lookup.py       from a dotted path to the place in the source; the ancestors of a class
classes.py      the parameters of a function, a class, a dataclass
annotations.py  which values an annotation admits, and how to say it
expressions.py  the value of an expression, where it can be told without running the code
guards.py       the settings that the code itself refuses: `if lr < 0: raise`
targets.py      `read`, which puts these together
"""

from regente.config.signatures.classes import Parameter
from regente.config.signatures.expressions import NOT_LITERAL
from regente.config.signatures.guards import refusals
from regente.config.signatures.modules import TargetNotFound
from regente.config.signatures.targets import Signature, read

__all__ = ["NOT_LITERAL", "Parameter", "Signature", "TargetNotFound", "read", "refusals"]
