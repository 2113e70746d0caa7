"""The values that an annotation allows, and how a message names them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from regente.config.signatures.lookup import Found
from regente.config.signatures.modules import Module, TargetNotFound, Unreadable

NOT_LITERAL = object()  # the value of what is missing or no literal


def literal(node: ast.expr | None) -> Any:
    """The value of a literal, else NOT_LITERAL."""
    try:
        return ast.literal_eval(node) if node else NOT_LITERAL
    except (ValueError, TypeError):
        return NOT_LITERAL


def is_plain(value: object) -> bool:
    """Whether `value` is YAML data: no object, and nothing that Hydra makes an object of."""
    plain = isinstance(value, NoneType | bool | int | float | str | list | tuple | dict)
    return plain and not (isinstance(value, dict) and "_target_" in value)


@dataclass(frozen=True, eq=False)
class Annotation:
    """The values that a parameter takes; `str()` names them as a message does."""

    one: str
    several: str
    matches: Callable[[Any], bool]  # asked of plain values alone
    choices: tuple[object, ...] = ()  # the values, where they are listed
    options: tuple[Annotation, ...] = ()  # of a union

    def allows(self, value: object) -> bool:
        """Whether the value fits; objects and nested `_target_` nodes always do."""
        return not is_plain(value) or self.matches(value)

    def loose(self) -> Annotation:
        """That of a class whose author may have written less than it takes: null, or a list in the place of one value."""
        lists = (list, tuple) if self in (WHOLE, NUMBER, FLAG, TEXT, PATH) else ()
        return replace(self, matches=lambda v: v is None or isinstance(v, lists) or self.matches(v))

    @property
    def takes_tensor(self) -> bool:
        """Whether a tensor is one of the values."""
        return TENSOR in (self, *self.options)

    def __str__(self) -> str:
        return self.one


def _kind(one: str, several: str, *types: type, choices: tuple[object, ...] = ()) -> Annotation:
    number = int in types and bool not in types
    return Annotation(
        one, several, lambda v: isinstance(v, types) and not (number and isinstance(v, bool)), choices
    )


def _object(name: str) -> Annotation:
    return _kind(f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name} object", f"{name} objects", object)


def _one_of(values: tuple[object, ...]) -> Annotation:
    # named as one types them on a command line, where 16 and "16" are the same
    names = list(dict.fromkeys("null" if each is None else str(each) for each in values))
    text = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    listed = Annotation(text, text, lambda v: any(type(v) is type(each) and v == each for each in values))
    return replace(listed, choices=values)


def _union(members: Iterable[Annotation]) -> Annotation:
    options = tuple(option for each in members for option in (each.options or (each,)))
    literals = [option for option in options if option.choices and option not in (FLAG, NULL)]
    values = tuple(dict.fromkeys(value for option in literals for value in option.choices))
    covered = [NULL, *literals, *[WHOLE] * (NUMBER in options), *[TENSOR] * (len(options) > 1)]
    named = [_one_of(values)] * bool(values) + [option for option in options if option not in covered]
    named += [NULL] * (NULL in options)
    return Annotation(
        " or ".join(dict.fromkeys(option.one for option in named)),
        " or ".join(dict.fromkeys(option.several for option in named)),
        lambda value: any(option.allows(value) for option in options),
        tuple(value for option in options for value in option.choices),
        options,
    )


def _list(item: Annotation, types: tuple[type, ...]) -> Annotation:
    of = "" if item is ANYTHING else f" of {item.several}"

    def matches(value: Any) -> bool:
        return isinstance(value, types) and all(item.allows(each) for each in value)  # type: ignore[attr-defined]

    return Annotation(f"a list{of}", f"lists{of}", matches)


def _mapping(key: Annotation, item: Annotation) -> Annotation:
    to = "" if item is ANYTHING else f" to {item.several}"

    def matches(value: Any) -> bool:
        return isinstance(value, dict) and all(key.allows(k) and item.allows(v) for k, v in value.items())

    return Annotation(f"a mapping{to}", f"mappings{to}", matches)


def _row(items: list[Annotation], *, exact: bool) -> Annotation:
    """A list of fixed length: tuple[int, str]. `tuple[int]` is often written for `tuple[int, ...]`.

    Unless `exact`, shares fit `tuple[int, int, int]`: people write it for a split, which takes both.
    """
    wide = items if exact else [NUMBER if item is WHOLE else item for item in items]

    def matches(value: Any) -> bool:
        fits = isinstance(value, list | tuple) and (len(value) == len(items) or len(items) == 1)
        return fits and all(item.allows(each) for item, each in zip(wide, value, strict=False))

    of = f"of ({', '.join(map(str, items))})"
    return Annotation(f"a list {of}", f"lists {of}", matches)


def _ranged(inner: Annotation, rules: list[tuple[str, Any]]) -> Annotation:
    """A range from `annotated_types`, e.g. Annotated[int, Ge(1)]."""
    if inner.options:
        return _union(_ranged(option, rules) for option in inner.options)
    if not rules or inner is NULL:
        return inner
    sizes = " and ".join(f"{_SIGNS[rule]} {limit}" for rule, limit in rules if rule in _SIGNS)
    lengths = [(f"{_LENGTHS[rule]} {limit}", limit) for rule, limit in rules if rule in _LENGTHS]
    exact = len(lengths) == 2 and lengths[0][1] == lengths[1][1]
    length = str(lengths[0][1]) if exact else " and ".join(text for text, _ in lengths)
    range_ = " ".join([sizes] * bool(sizes) + [f"of length {length}"] * bool(length))
    return Annotation(
        f"{inner.one} {range_}",
        f"{inner.several} {range_}",
        lambda value: inner.allows(value) and all(_within(value, rule, limit) for rule, limit in rules),
        inner.choices,
    )


def _within(value: Any, rule: str, limit: Any) -> bool:
    if rule in _LENGTHS:
        size = len(value) if isinstance(value, str | list | tuple | dict) else limit
        return bool(size >= limit if rule == "min_length" else size <= limit)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True  # the annotation itself refuses what is no number
    return bool(getattr(operator, rule)(value, limit))


ANYTHING = _kind("anything", "anything", object)
WHOLE = _kind("a whole number", "whole numbers", int)
NUMBER = _kind("a number", "numbers", int, float)
FLAG = _kind("true or false", "true or false", bool, choices=(True, False))
TEXT = _kind("a text", "texts", str, int)  # YAML reads a text of digits as an int
PATH = _kind("a path", "paths", str)
NULL = _kind("null", "null", NoneType, choices=(None,))
TENSOR = _kind("a tensor", "tensors")  # no YAML value is one, and objects are always allowed
ARRAY = _kind("a tensor", "tensors", int, float, list, tuple)  # of which it can be made

_KINDS = {"int": WHOLE, "Integral": WHOLE, "float": NUMBER, "Real": NUMBER, "Number": NUMBER, "bool": FLAG}
_KINDS |= {"str": TEXT, "None": NULL, "NoneType": NULL, "Any": ANYTHING, "object": ANYTHING}
_KINDS |= dict.fromkeys(("Path", "PurePath", "PosixPath", "PathLike"), PATH)
_STANDARD = {"builtins", "typing", "typing_extensions", "collections", "numbers", "pathlib", "os", "types"}
_STANDARD |= {"dataclasses", "datetime", "annotated_types"}
EXACT = ("torch.", "torchmetrics.", "torchvision.", "pytorch_lightning.", "lightning_fabric.", "regente.")
# What YAML may give for a collection; a text or a mapping is an Iterable too
_LISTS: dict[str, tuple[type, ...]] = dict.fromkeys(
    ["list", "List", "MutableSequence", "set", "Set", "AbstractSet", "MutableSet", "frozenset", "FrozenSet"],
    (list, tuple),
)
_LISTS |= dict.fromkeys(["Sequence", "Iterable", "Collection", "Container"], (list, tuple, str, dict))
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "OrderedDict", "defaultdict", "DefaultDict"}

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_LENGTHS = {"min_length": ">=", "max_length": "<="}
_RULES = {"Gt": ("gt",), "Ge": ("ge",), "Lt": ("lt",), "Le": ("le",), "Interval": ("gt", "ge", "lt", "le")}
_RULES |= {"MinLen": ("min_length",), "MaxLen": ("max_length",), "Len": ("min_length", "max_length")}


def optional(annotation: Annotation) -> Annotation:
    """The annotation or null."""
    return _union([annotation, NULL])


def parse_annotation(node: ast.AST, module: Module, trail: frozenset[str] = frozenset()) -> Annotation:
    """The annotation that `node` writes in the module; what cannot be read allows everything."""
    match node:
        case ast.Constant(value=None):
            return NULL
        case ast.Constant(value=str(text)):
            with suppress(SyntaxError):
                return parse_annotation(ast.parse(text.strip(), mode="eval").body, module, trail)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union(parse_annotation(side, module, trail) for side in (left, right))
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), module, trail)
        case ast.Subscript(value=ast.Name() | ast.Attribute() as outer, slice=inner):
            inside = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _subscripted(ast.unparse(outer), inside, module, trail)
    return ANYTHING


def _named(name: str, module: Module, trail: frozenset[str]) -> Annotation:
    path = module.absolute(name)
    above, _, last = path.rpartition(".")
    if path == "torch.Tensor":  # a class of the user's may make one of numbers
        return TENSOR if module.name.startswith("torch.") else ARRAY
    if above.partition(".")[0] in _STANDARD:
        if types := _LISTS.get("list" if last in ("tuple", "Tuple") else last):
            return _list(ANYTHING, types)
        return _mapping(ANYTHING, ANYTHING) if last in _MAPPINGS else _KINDS.get(last) or _object(last)
    # torch/__init__.py is too long to read for a dtype
    if above not in ("torch", "numpy") and path not in trail:
        with suppress(TargetNotFound, Unreadable):
            found = Found(module).reach(name)
            if isinstance(found.node, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp):
                return parse_annotation(found.node, found.module, trail | {path})
    return _object(last)


def _subscripted(name: str, inside: list[ast.expr], module: Module, trail: frozenset[str]) -> Annotation:
    root, _, last = module.absolute(name).rpartition(".")
    if root.partition(".")[0] not in _STANDARD:
        return _named(name, module, trail)
    if last == "Literal":
        values = tuple(map(literal, inside))
        return ANYTHING if NOT_LITERAL in values else _one_of(values)
    if last == "Annotated":
        return _ranged(parse_annotation(inside[0], module, trail), list(_rules(inside[1:])))
    each = [parse_annotation(node, module, trail) for node in inside]
    if last in ("Optional", "Union"):
        return optional(_union(each)) if last == "Optional" else _union(each)
    if last in _MAPPINGS:
        return _mapping(each[0], each[-1])
    if last in ("tuple", "Tuple"):
        endless = isinstance(inside[-1], ast.Constant) and inside[-1].value is ...
        return _list(each[0], (list, tuple)) if endless else _row(each, exact=module.name.startswith(EXACT))
    return _list(each[-1], _LISTS[last]) if last in _LISTS else _named(name, module, trail)


def _rules(metadata: Iterable[ast.expr]) -> Iterator[tuple[str, Any]]:
    for node in (node for node in metadata if isinstance(node, ast.Call)):
        names = _RULES.get(ast.unparse(node.func).rpartition(".")[2], ())
        given = [*zip(names, node.args, strict=False), *((k.arg, k.value) for k in node.keywords if names)]
        for rule, limit in ((str(rule), literal(written)) for rule, written in given):
            if isinstance(limit, int | float):
                yield rule, limit
