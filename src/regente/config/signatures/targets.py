"""`read`: what the class or function with a dotted path takes."""

import ast
import re
from dataclasses import dataclass, field
from typing import Literal

from regente.config.signatures.lookup import Found, find, lineage, roots
from regente.config.signatures.modules import TargetNotFound, Unreadable
from regente.config.signatures.parameters import Function, Parameter, of_class, of_function


@dataclass(frozen=True, eq=False)
class Signature:
    """What a target takes. `open`: it may take further arguments."""

    target: str
    kind: Literal["class", "function", "unknown"] = "unknown"
    parameters: dict[str, Parameter] = field(default_factory=dict)
    open: bool = True
    found: Found | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The dotted path where it is defined; "" if only running the code would tell."""
        return self.found.path if self.found else ""

    def derives_from(self, path: str) -> bool | None:
        """Whether it is a class of that kind; None if it is no class, or an ancestor cannot be read."""
        if self.found is None or self.kind != "class":
            return None
        wanted, line = (roots(path) or (find(path).path,))[0], lineage(self.found)
        if any(name == wanted for name, _ in line):
            return True
        return None if any(not cls and not roots(name) for name, cls in line) else False


def read(target: str) -> Signature:
    """The signature of the class or function with the dotted path.

    Raises TargetNotFound if there is none, SyntaxError if a module on the way to it does not parse.
    """
    try:
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", target):  # a module may be called 2d_data
            raise TargetNotFound(target)
        found = find(target)
    except TargetNotFound as error:
        error.target = target
        raise
    except Unreadable as error:
        if isinstance(error.__cause__, SyntaxError):
            raise error.__cause__ from None
        return Signature(target)
    match found.node:
        case None:
            names = found.module.contents.names if found.module.file.endswith(".py") else {}
            callables = [n for n, (first, *_) in names.items() if isinstance(first, ast.ClassDef | Function)]
            raise TargetNotFound(target, callables)
        case ast.FunctionDef() | ast.AsyncFunctionDef() as function:
            bound = "classmethod" in map(ast.unparse, function.decorator_list)
            parameters = of_function(function, found.module, bound)
            return Signature(target, "function", parameters, function.args.kwarg is not None, found)
        case ast.ClassDef():
            return Signature(target, "class", *of_class(lineage(found)), found)
    return Signature(target, found=found)
