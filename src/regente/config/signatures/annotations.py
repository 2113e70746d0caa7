"""The values that an annotation admits, and how to say in plain words what it wants."""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import Any

from regente.config.signatures.expressions import NOT_LITERAL, is_plain, literal
from regente.config.signatures.lookup import Found
from regente.config.signatures.modules import Module, TargetNotFound, Unreadable


class Annotation:
    """The values that a parameter takes; `str()` says them in plain words."""

    def admits(self, value: object) -> bool:
        return not is_plain(value) or self.holds(value)

    def holds(self, value: Any) -> bool:
        raise NotImplementedError

    def words(self, many: bool = False) -> str:
        raise NotImplementedError

    def listed(self) -> tuple[object, ...]:
        """The values that it names one by one."""
        return ()

    def __str__(self) -> str:
        return self.words()


@dataclass(eq=False)
class Kind(Annotation):
    one: str
    several: str
    types: tuple[type, ...] = (object,)

    def holds(self, value: Any) -> bool:
        return isinstance(value, self.types) and not (isinstance(value, bool) and int in self.types)

    def words(self, many: bool = False) -> str:
        return self.several if many else self.one

    def listed(self) -> tuple[object, ...]:
        return {bool: (True, False), NoneType: (None,)}.get(self.types[0], ()) if self.types else ()


@dataclass(eq=False)
class OneOf(Annotation):
    values: tuple[object, ...]

    def holds(self, value: Any) -> bool:
        return any(type(value) is type(each) and value == each for each in self.values)

    def words(self, many: bool = False) -> str:
        # as one types them on a command line, where 16 and "16" are one
        said = dict.fromkeys("null" if each is None else str(each) for each in self.values)
        return ", ".join(said) if len(said) == 1 else f"one of {', '.join(said)}"

    def listed(self) -> tuple[object, ...]:
        return self.values


@dataclass(eq=False)
class AnyOf(Annotation):
    options: tuple[Annotation, ...]

    def holds(self, value: Any) -> bool:
        return any(option.admits(value) for option in self.options)

    def flat(self) -> Iterator[Annotation]:
        for option in self.options:
            yield from option.flat() if isinstance(option, AnyOf) else (option,)

    def words(self, many: bool = False) -> str:
        flat = list(self.flat())
        values = [value for option in flat if isinstance(option, OneOf) for value in option.values]
        said = [OneOf(tuple(dict.fromkeys(values))).words()] if values else []
        covered = (NULL, WHOLE) if NUMBER in flat else (NULL,)
        said += [each.words(many) for each in flat if not isinstance(each, OneOf) and each not in covered]
        return " or ".join(dict.fromkeys(said + ["null"] * (NULL in flat)))

    def listed(self) -> tuple[object, ...]:
        return tuple(value for option in self.options for value in option.listed())


@dataclass(eq=False)
class Each(Annotation):
    """A list or a mapping, the items of which are of one kind."""

    item: Annotation
    types: tuple[type, ...]
    key: Annotation  # of a mapping

    def holds(self, value: Any) -> bool:
        fits = isinstance(value, self.types)
        if fits and self.types == (dict,):
            return all(self.key.admits(key) and self.item.admits(each) for key, each in value.items())
        return fits and all(self.item.admits(each) for each in value)

    def words(self, many: bool = False) -> str:
        one, several, of = _MAPPING if self.types == (dict,) else _LIST
        return (several if many else one) + ("" if self.item is ANYTHING else of + self.item.words(True))


@dataclass(eq=False)
class Row(Annotation):
    """A list of fixed length: tuple[int, str]."""

    items: tuple[Annotation, ...]

    def holds(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or (len(value) != len(self.items) and len(self.items) > 1):
            return False  # `tuple[int]` is often written for `tuple[int, ...]`
        return all(item.admits(each) for item, each in zip(self.items, value, strict=False))

    def words(self, many: bool = False) -> str:
        return f"{'lists' if many else 'a list'} of ({', '.join(map(str, self.items))})"


@dataclass(eq=False)
class Ranged(Annotation):
    """A range from `annotated_types`, e.g. Annotated[int, Ge(1)]."""

    inner: Annotation
    rules: tuple[tuple[str, Any], ...]

    def holds(self, value: Any) -> bool:
        return self.inner.admits(value) and all(_within(value, rule, limit) for rule, limit in self.rules)

    def words(self, many: bool = False) -> str:
        sizes = [f"{_SIGNS[rule]} {limit}" for rule, limit in self.rules if rule in _SIGNS]
        lengths = [(f"{_LENGTHS[rule]} {limit}", limit) for rule, limit in self.rules if rule in _LENGTHS]
        length = f"of length {' and '.join(words for words, _ in lengths)}" if lengths else ""
        if len(lengths) == 2 and lengths[0][1] == lengths[1][1]:
            length = f"of length {lengths[0][1]}"
        return " ".join(filter(None, (self.inner.words(many), " and ".join(sizes), length)))

    def listed(self) -> tuple[object, ...]:
        return self.inner.listed()


ANYTHING = Kind("anything", "anything")
WHOLE = Kind("a whole number", "whole numbers", (int,))
NUMBER = Kind("a number", "numbers", (int, float))
FLAG = Kind("true or false", "true or false", (bool,))
TEXT = Kind("a text", "texts", (str,))
PATH = Kind("a path", "paths", (str,))
NULL = Kind("null", "null", (NoneType,))
TENSOR = Kind("a tensor", "tensors", ())  # no YAML value is one; objects are admitted anyway

_KINDS = {"int": WHOLE, "Integral": WHOLE, "float": NUMBER, "Real": NUMBER, "Number": NUMBER, "bool": FLAG}
_KINDS |= {"str": TEXT, "None": NULL, "NoneType": NULL, "Any": ANYTHING, "object": ANYTHING}
_KINDS |= dict.fromkeys(("Path", "PurePath", "PosixPath", "PathLike"), PATH)
_STANDARD = {"builtins", "typing", "typing_extensions", "collections", "numbers", "pathlib", "os", "types"}
_STANDARD |= {"dataclasses", "datetime", "annotated_types"}
_LIST, _MAPPING = ("a list", "lists", " of "), ("a mapping", "mappings", " to ")
_ITEMS: dict[str, tuple[type, ...]] = {}  # what YAML may give for it; a text or a mapping is an Iterable too
for _names, _types in (
    ("list List MutableSequence set Set AbstractSet MutableSet frozenset FrozenSet", (list, tuple)),
    ("Sequence Iterable Collection Container", (list, tuple, str, dict)),
    ("dict Dict Mapping MutableMapping OrderedDict defaultdict DefaultDict", (dict,)),
):
    _ITEMS |= dict.fromkeys(_names.split(), _types)

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_LENGTHS = {"min_length": ">=", "max_length": "<="}
_RULES = {"Gt": ("gt",), "Ge": ("ge",), "Lt": ("lt",), "Le": ("le",), "Interval": ("gt", "ge", "lt", "le")}
_RULES |= {"MinLen": ("min_length",), "MaxLen": ("max_length",), "Len": ("min_length", "max_length")}


def _within(value: Any, rule: str, limit: Any) -> bool:
    if rule in _LENGTHS:
        size = len(value) if isinstance(value, str | list | tuple | dict) else limit
        return bool(size >= limit if rule == "min_length" else size <= limit)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True  # whether it may be no number is for the annotation to say
    return bool(getattr(operator, rule)(value, limit))


def understand(node: ast.AST, module: Module, trail: frozenset[str] = frozenset()) -> Annotation:
    """The annotation that `node` writes down in the module; what cannot be read admits everything."""
    match node:
        case ast.Constant(value=None):
            return NULL
        case ast.Constant(value=str(text)):
            try:
                return understand(ast.parse(text.strip(), mode="eval").body, module, trail)
            except SyntaxError:
                return ANYTHING
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return AnyOf((understand(left, module, trail), understand(right, module, trail)))
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), module, trail)
        case ast.Subscript(value=ast.Name() | ast.Attribute() as outer, slice=inner):
            inside = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _subscripted(ast.unparse(outer), inside, module, trail)
    return ANYTHING


def _object(name: str) -> Kind:
    return Kind(f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name} object", f"{name} objects")


def _named(name: str, module: Module, trail: frozenset[str]) -> Annotation:
    path = module.absolute(name)
    above, _, last = path.rpartition(".")
    if path == "torch.Tensor":
        return TENSOR
    if above.partition(".")[0] in _STANDARD:
        types = _ITEMS.get("list" if last in ("tuple", "Tuple") else last)
        return Each(ANYTHING, types, ANYTHING) if types else _KINDS.get(last) or _object(last)
    if (
        above not in ("torch", "numpy") and path not in trail
    ):  # torch/__init__.py is too long to read for a dtype
        with suppress(TargetNotFound, Unreadable):
            found = Found(module).reach(name)
            if isinstance(found.node, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp):
                return understand(found.node, found.module, trail | {path})
    return _object(last)


def _subscripted(name: str, inside: list[ast.expr], module: Module, trail: frozenset[str]) -> Annotation:
    root, _, last = module.absolute(name).rpartition(".")
    if root.partition(".")[0] not in _STANDARD:
        return _named(name, module, trail)
    match last:
        case "Literal":
            values = tuple(map(literal, inside))
            return ANYTHING if NOT_LITERAL in values else OneOf(values)
        case "Annotated":
            return _ranged(understand(inside[0], module, trail), tuple(_rules(inside[1:])))
    each = [understand(node, module, trail) for node in inside]
    if last in ("Optional", "Union"):
        return AnyOf((*each, *[NULL] * (last == "Optional")))
    if types := _ITEMS.get(last):
        return Each(each[-1], types, each[0])
    if last in ("tuple", "Tuple"):
        endless = isinstance(inside[-1], ast.Constant) and inside[-1].value is ...
        return Each(each[0], (list, tuple), ANYTHING) if endless else Row(tuple(each))
    return _named(name, module, trail)


def _ranged(inner: Annotation, rules: tuple[tuple[str, Any], ...]) -> Annotation:
    if isinstance(inner, AnyOf):
        return AnyOf(tuple(_ranged(option, rules) for option in inner.options))
    return inner if not rules or inner is NULL else Ranged(inner, rules)


def _rules(metadata: Iterable[ast.expr]) -> Iterator[tuple[str, Any]]:
    for node in (node for node in metadata if isinstance(node, ast.Call)):
        names = _RULES.get(ast.unparse(node.func).rpartition(".")[2], ())
        given = [*zip(names, node.args, strict=False), *((k.arg, k.value) for k in node.keywords if names)]
        for rule, limit in ((str(rule), literal(written)) for rule, written in given):
            if isinstance(limit, int | float):
                yield rule, limit
