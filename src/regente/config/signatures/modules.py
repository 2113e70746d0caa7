"""Modules on the disk, and the names that their source binds."""

from __future__ import annotations

import ast
import builtins
import difflib
import importlib.util
import operator
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any


class TargetNotFound(LookupError):  # noqa: N818 - the house drops the suffix
    """No module, or no name in a module, has the dotted path."""

    def __init__(self, part: str, siblings: Iterable[str] = ()) -> None:
        self.target = self.part = part
        self.closest = closest(part.rpartition(".")[2], siblings)

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(self.closest)}?" if self.closest else ""
        return f"{self.target}: {self.part} not found{hint}"


class Unreadable(Exception):  # noqa: N818
    """The source does not tell: C code, a module `__getattr__`, names made at run time."""


def closest(name: str, siblings: Iterable[str]) -> list[str]:
    """Up to three siblings like the name, in any case; of two that differ in case only, one."""
    ordered = sorted(siblings, key=lambda sibling: sibling.islower() == name.islower())
    lower = {sibling.lower(): sibling for sibling in ordered if name[:1] == "_" or sibling[:1] != "_"}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), lower)]


@dataclass(eq=False, repr=False)
class Contents:
    """What a body binds to each name: a dotted path to import from, or a node; the likeliest comes first."""

    names: dict[str, list[str | ast.AST]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)  # modules of `import *`
    exports: set[str] = field(default_factory=set)  # __all__; empty if there is none
    all_exports_known: bool = True  # __all__ is a literal
    dynamic: bool = False  # more names may appear at run time
    text: bytes = b""

    def exported(self, name: str) -> bool:
        """Whether `import *` brings the name."""
        only_listed = self.exports and self.all_exports_known and not self.dynamic
        return name in self.exports or not (only_listed or name.startswith("_"))

    def bind(self, name: str, meaning: str | ast.AST, fallback: bool = False) -> None:
        known = self.names.setdefault(name, [])
        known.insert(len(known) if fallback else 0, meaning)


@dataclass(eq=False)
class Module:
    name: str
    file: str  # "" for a namespace package
    dirs: list[str]  # where the submodules of a package lie

    @cached_property
    def contents(self) -> Contents:
        if not self.file and self.dirs:
            return Contents()
        path = Path(self.file)
        if path.suffix != ".py" or not path.is_file():  # C code, or in a zip file
            raise Unreadable(f"{self.name} is no Python source")
        state = path.stat()
        return _contents(self.name, path, bool(self.dirs), (state.st_mtime_ns, state.st_size))

    def submodule(self, part: str) -> Module | None:
        # found by its last name alone: for a namespace package, find_spec would look for an imported parent
        return _module(f"{self.name}.{part}", PathFinder.find_spec(part, self.dirs)) if self.dirs else None

    def submodules(self) -> list[str]:
        return [found.name for found in pkgutil.iter_modules(self.dirs)]

    def absolute(self, name: str) -> str:
        """The dotted path that `name` has in this module; for an imported name, that of its source."""
        first, dot, rest = name.partition(".")
        bound = self.contents.names.get(first, [])
        if bound and isinstance(bound[0], str):
            return bound[0] + dot + rest
        return f"builtins.{name}" if not bound and hasattr(builtins, first) else f"{self.name}.{name}"


def top_module(name: str) -> Module:
    """The module or package of this name on the import path.

    Raises TargetNotFound if there is none, Unreadable if it cannot be looked for.
    """
    try:
        module = _module(name, importlib.util.find_spec(name)) if name else None
    except (ImportError, ValueError) as error:
        raise Unreadable(str(error)) from error
    if module is None:
        raise TargetNotFound(name, _top_names())
    return module


def _module(name: str, spec: ModuleSpec | None) -> Module | None:
    origin = spec.origin if spec and spec.has_location else None
    return Module(name, origin or "", list(spec.submodule_search_locations or ())) if spec else None


def _top_names() -> Iterator[str]:
    """What can be imported: modules on the path, imported modules, editable installs."""
    yield from (found.name for found in pkgutil.iter_modules())
    for name, module in list(sys.modules.items()):
        editable = getattr(module, "MAPPING", {}) if name.startswith("__editable__") else {}
        yield from (each.partition(".")[0] for each in (name, *editable))


@cache
def _contents(name: str, file: Path, package: bool, state: tuple[int, int]) -> Contents:
    text = file.read_bytes()
    found = Contents(text=text)
    try:
        with warnings.catch_warnings(action="ignore"):  # "\d" in the source of others
            tree = ast.parse(text, file)
    except (SyntaxError, ValueError) as error:
        raise Unreadable(str(error)) from error
    at_run_time = rb"\bglobals\(\)|\bsys\.modules\[|^def __getattr__|\bexec\("
    found.dynamic = bool(re.search(at_run_time, text, re.MULTILINE))
    bind(tree.body, found, name if package else name.rpartition(".")[0])
    return found


_VALUES: dict[str, Any] = {"sys.platform": sys.platform, "sys.version_info": tuple(sys.version_info)}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_COMPARE |= {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}


def _outcome(test: ast.expr) -> bool | None:
    """Whether a condition on TYPE_CHECKING, Python's version or the platform holds; None for any other condition."""
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            outcome = _outcome(operand)
            return None if outcome is None else not outcome
        case ast.Compare(left=left, ops=[op], comparators=[ast.Constant() | ast.Tuple() as right]):
            with suppress(KeyError, TypeError, ValueError):
                return bool(_COMPARE[type(op)](_VALUES[ast.unparse(left)], ast.literal_eval(right)))
    return None


def bind(body: list[ast.stmt], into: Contents, package: str = "", fallback: bool = False) -> None:
    """Note what the statements bind; what a failed `try` or an uncertain `else` binds is a fallback."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                for each in names:
                    first = each.name.partition(".")[0]
                    into.bind(each.asname or first, each.name if each.asname else first, fallback)
            case ast.ImportFrom(names=names):
                above = package.rsplit(".", statement.level - 1)[0] if statement.level else ""
                source = ".".join(filter(None, (above, statement.module)))
                for each in names:
                    if each.name == "*":
                        into.stars.append(source)
                    else:
                        into.bind(each.asname or each.name, f"{source}.{each.name}", fallback)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                into.bind(statement.name, statement, fallback)
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=listed)
                | ast.AugAssign(target=ast.Name(id="__all__"), value=listed)
                | ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="__all__"))) as listed)
            ):
                _export(listed, into)
            case ast.Assign(targets=targets, value=value):
                for node in (node for target in targets for node in ast.walk(target)):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        into.bind(node.id, value if node in targets else statement, fallback)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                into.bind(name, value, fallback)
            case ast.If(test=test):
                outcome = _outcome(test)
                if outcome is not False:
                    bind(statement.body, into, package, fallback)
                if outcome is not True:
                    bind(statement.orelse, into, package, fallback or outcome is None)
            case ast.Try() | ast.TryStar():
                bind([*statement.body, *statement.orelse, *statement.finalbody], into, package, fallback)
                for handler in statement.handlers:
                    bind(handler.body, into, package, fallback=True)
            case ast.With() | ast.For() | ast.While():
                bind(statement.body, into, package, fallback)


def _export(listed: ast.expr, into: Contents) -> None:
    try:
        into.exports.update(ast.literal_eval(listed))
    except (ValueError, TypeError):
        into.all_exports_known = False
        into.exports.update(str(n.value) for n in ast.walk(listed) if isinstance(n, ast.Constant))
