"""From a dotted path to the place in the source, and from a class to its ancestors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from regente.config.signatures.modules import Contents, Module, TargetNotFound, Unreadable, bind, closest, top

_MODULE = "torch.nn.modules.module.Module"
_LIGHTNING_MODULE = "pytorch_lightning.core.module.LightningModule"


@dataclass(frozen=True, eq=False)
class Found:
    """A module, or what stands under a name in it."""

    module: Module
    node: ast.AST | None = None
    name: str = ""

    @property
    def path(self) -> str:
        return f"{self.module.name}.{self.name}" if self.name else self.module.name

    def reach(self, name: str, seen: frozenset[str] = frozenset(), more: bool = False) -> Found:
        """What `name` leads to from here; with `more`, a module is meant where there is one of the name."""
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
        return self._bound(part, seen, more)

    def _shadows(self, part: str) -> bool:
        """Whether the package may give the name of one of its modules to something else."""
        contents, own = self.module.contents, f"{self.module.name}.{part}"
        return bool(contents.stars) or any(meaning != own for meaning in contents.names.get(part, []))

    def _bound(self, name: str, seen: frozenset[str], more: bool) -> Found:
        contents, key = self.module.contents, f"{self.module.name}.{name}"
        unclear = contents.dynamic
        for meaning in contents.names.get(name, []) if key not in seen else ():
            try:
                return self._meant(name, meaning, seen | {key}, more)
            except (TargetNotFound, Unreadable) as error:
                if isinstance(error.__cause__, SyntaxError):
                    raise
                unclear = True
        for star in reversed(contents.stars) if key not in seen else ():
            try:
                there = find(star, more=True)
                if there.module.contents.shows(name):
                    return there._step(name, seen | {key}, more)
            except TargetNotFound:
                continue
            except Unreadable:
                unclear = True
        if sub := self.module.submodule(name):
            return Found(sub)
        if unclear and not (more and self._misspelt(name)):
            raise Unreadable(f"{key} is decided at run time")
        raise TargetNotFound(key if more else name, self._names())

    def _meant(self, name: str, meaning: str | ast.AST, seen: frozenset[str], more: bool) -> Found:
        if isinstance(meaning, str):
            return find(meaning, seen, more)
        if isinstance(meaning, ast.Name | ast.Attribute):
            try:
                return Found(self.module).reach(ast.unparse(meaning), seen, more)
            except (TargetNotFound, Unreadable):
                pass
        return Found(self.module, meaning, name)

    def _misspelt(self, name: str) -> bool:
        """Whether a name that might appear at run time is surely a module's name gone wrong: torch.optm."""
        mentioned = re.search(rb"\b%s\b" % name.encode(), self.module.contents.text)
        return name.islower() and not mentioned and bool(closest(name, self.module.submodules()))

    def _names(self) -> list[str]:
        names = [*self.module.contents.names, *self.module.submodules()]
        for star in self.module.contents.stars:
            try:
                contents = find(star, more=True).module.contents
            except (TargetNotFound, Unreadable):
                continue
            names += filter(contents.shows, contents.names)
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
        """What the body of the class itself binds to the name."""
        meanings = self.members.names.get(name, [])
        return next((meaning for meaning in meanings if isinstance(meaning, ast.AST)), None)


def find(path: str, seen: frozenset[str] = frozenset(), more: bool = False) -> Found:
    """What stands under the dotted path.

    Raises TargetNotFound if there is nothing, Unreadable if only running would show.
    """
    first, dot, rest = path.partition(".")
    return Found(top(first)).reach(rest, seen, more) if dot else Found(top(first))


Line = list[tuple[str, Found | None]]  # dotted names, and the classes where there is source


def roots(path: str) -> tuple[str, ...]:
    """The names of a class that takes no arguments of its own and is too large to read for that."""
    if path in ("torch.nn.Module", _MODULE):
        return (_MODULE,)
    if path.endswith(".LightningModule") and path.startswith(("pytorch_lightning.", "lightning.pytorch.")):
        return (_LIGHTNING_MODULE, _MODULE)
    plain = path in ("builtins.object", "abc.ABC") or path.startswith(("typing.", "typing_extensions."))
    return (path,) if plain or path.startswith("collections.abc.") else ()


def lineage(cls: Found) -> Line:
    """The class and its ancestors in the order in which they are asked."""
    above = [pair for base in cls.class_node.bases for pair in base_line(cls, base)]
    last = {path: i for i, (path, _) in enumerate(above)}  # of a diamond, the last occurrence counts
    return [(cls.path, cls), *(pair for i, pair in enumerate(above) if last[pair[0]] == i)]


def readable(line: Line) -> Iterator[Found]:
    """The classes in the line; raises Unreadable at one that has no source."""
    for path, cls in line:
        if cls:
            yield cls
        elif not roots(path):
            raise Unreadable(f"{path} cannot be read")


def base_line(cls: Found, written: ast.expr) -> Line:
    """The lineage of the base that the class calls so."""
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
