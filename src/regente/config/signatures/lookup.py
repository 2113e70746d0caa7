"""From a dotted path to the place in the source, and from a class to its ancestors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from regente.config.lightning_alias import canonical
from regente.config.signatures.modules import (
    Contents,
    Module,
    TargetNotFound,
    Unreadable,
    bind,
    closest,
    top_module,
)

_MODULE = "torch.nn.modules.module.Module"
_LIGHTNING_MODULE = "pytorch_lightning.core.module.LightningModule"


@dataclass(frozen=True, eq=False)
class Found:
    """A module, or what a name in it is bound to."""

    module: Module
    node: ast.AST | None = None
    name: str = ""

    @property
    def path(self) -> str:
        return f"{self.module.name}.{self.name}" if self.name else self.module.name

    def reach(self, name: str, seen: frozenset[str] = frozenset(), more: bool = False) -> Found:
        """What the dotted name leads to from here; with `more`, names follow, so that a module is preferred."""
        found, parts = self, name.split(".")
        for i, part in enumerate(parts):
            found = found._step(part, seen, more or i < len(parts) - 1)
        return found

    def _step(self, part: str, seen: frozenset[str], more: bool) -> Found:
        if isinstance(self.node, ast.ClassDef):
            return self._member(part)
        if self.node is not None:
            raise Unreadable(f"{self.path} is no class")
        sub = self.module.submodule(part)
        if sub and (more or not self._shadows(part)):
            return Found(sub)
        return self._look_up(part, seen, more)

    def _shadows(self, part: str) -> bool:
        """Whether the package may bind the name of one of its modules to something else."""
        contents, own = self.module.contents, f"{self.module.name}.{part}"
        return bool(contents.stars) or any(meaning != own for meaning in contents.names.get(part, []))

    def _look_up(self, name: str, seen: frozenset[str], more: bool) -> Found:
        contents, key = self.module.contents, f"{self.module.name}.{name}"
        unclear = contents.dynamic
        for meaning in contents.names.get(name, []) if key not in seen else ():
            try:
                return self._resolve_meaning(name, meaning, seen | {key}, more)
            except (TargetNotFound, Unreadable) as error:
                if isinstance(error.__cause__, SyntaxError):
                    raise
                unclear = True
        for star in reversed(contents.stars) if key not in seen else ():
            try:
                there = find(star, more=True)
                if there.module.contents.exported(name):
                    return there._step(name, seen | {key}, more)
            except TargetNotFound:
                continue
            except Unreadable:
                unclear = True
        if sub := self.module.submodule(name):
            return Found(sub)
        if unclear and not (more and self._is_misspelt(name)):
            raise Unreadable(f"{key} is decided at run time")
        raise TargetNotFound(key if more else name, self._names())

    def _resolve_meaning(self, name: str, meaning: str | ast.AST, seen: frozenset[str], more: bool) -> Found:
        if isinstance(meaning, str):
            return find(meaning, seen, more)
        if isinstance(meaning, ast.Name | ast.Attribute):
            try:
                return Found(self.module).reach(ast.unparse(meaning), seen, more)
            except (TargetNotFound, Unreadable):
                pass
        return Found(self.module, meaning, name)

    def _is_misspelt(self, name: str) -> bool:
        """Whether a name that might appear at run time is rather a misspelt module: torch.optm."""
        mentioned = re.search(rb"\b%s\b" % name.encode(), self.module.contents.text)
        return name.islower() and not mentioned and bool(closest(name, self.module.submodules()))

    def _names(self) -> list[str]:
        names = [*self.module.contents.names, *self.module.submodules()]
        for star in self.module.contents.stars:
            try:
                contents = find(star, more=True).module.contents
            except (TargetNotFound, Unreadable):
                continue
            names += filter(contents.exported, contents.names)
        return names

    def _member(self, part: str) -> Found:
        names: list[str] = []
        for cls in readable(lineage(self)):
            if node := cls.own(part):
                return Found(cls.module, node, f"{cls.name}.{part}")
            names += cls.members.names
        raise TargetNotFound(part, names)

    @property
    def class_node(self) -> ast.ClassDef:
        assert isinstance(self.node, ast.ClassDef)
        return self.node

    @property
    def members(self) -> Contents:
        members = Contents()
        bind(self.class_node.body, members)
        return members

    def own(self, name: str) -> ast.AST | None:
        """What the body of the class itself binds the name to."""
        meanings = self.members.names.get(name, [])
        return next((meaning for meaning in meanings if isinstance(meaning, ast.AST)), None)


def find(path: str, seen: frozenset[str] = frozenset(), more: bool = False) -> Found:
    """The module, class or function with the dotted path.

    Raises TargetNotFound if there is none, Unreadable if only running the code would tell.
    """
    first, dot, rest = canonical(path).partition(".")
    return Found(top_module(first)).reach(rest, seen, more) if dot else Found(top_module(first))


# A class and its ancestors: their dotted names, and the classes where there is source
Lineage = list[tuple[str, Found | None]]


def roots(path: str) -> tuple[str, ...]:
    """The names of a class that takes no arguments and needs no reading, with its ancestors; else empty."""
    path = canonical(path)
    if path in ("torch.nn.Module", _MODULE):
        return (_MODULE,)
    if path.endswith(".LightningModule") and path.startswith("pytorch_lightning."):
        return (_LIGHTNING_MODULE, _MODULE)
    plain = path in ("builtins.object", "abc.ABC") or path.startswith(("typing.", "typing_extensions."))
    return (path,) if plain or path.startswith("collections.abc.") else ()


def lineage(cls: Found) -> Lineage:
    """The class and its ancestors, in the order in which Python looks for a method."""
    above = [pair for base in cls.class_node.bases for pair in base_line(cls, base)]
    last = {path: i for i, (path, _) in enumerate(above)}  # of a diamond, the last occurrence counts
    return [(cls.path, cls), *(pair for i, pair in enumerate(above) if last[pair[0]] == i)]


def readable(line: Lineage) -> Iterator[Found]:
    """The classes of a lineage; raises Unreadable at one that has no source."""
    for path, cls in line:
        if cls:
            yield cls
        elif not roots(path):
            raise Unreadable(f"{path} cannot be read")


def base_line(cls: Found, written: ast.expr) -> Lineage:
    """The lineage of a base, as the class names it."""
    name = ast.unparse(written.value if isinstance(written, ast.Subscript) else written)  # Generic[T]
    path = cls.module.absolute(name)
    if not roots(path):
        try:
            found = Found(cls.module).reach(name)
        except (TargetNotFound, Unreadable):
            return [(path, None)]
        if not isinstance(found.node, ast.ClassDef) or found.node is cls.node:
            return [(path, None)]
        if not roots(found.path):
            return lineage(found)
        path = found.path
    return [(each, None) for each in roots(path)]
