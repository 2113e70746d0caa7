"""What the class or function of a `_target_` takes, read from its source: nothing is imported.

modules.py      where modules are on the disk, and which names they bind
lookup.py       from a dotted path to the source; the ancestors of a class
parameters.py   the parameters of a function, a class, a dataclass
annotations.py  which values an annotation allows, and how a message names them
targets.py      `read`, which puts these together
"""

from regente.config.signatures.annotations import NOT_LITERAL
from regente.config.signatures.modules import TargetNotFound
from regente.config.signatures.parameters import Parameter
from regente.config.signatures.targets import Signature, read

__all__ = ["NOT_LITERAL", "Parameter", "Signature", "TargetNotFound", "read"]
