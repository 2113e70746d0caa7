"""The parameters of a function, and those of a class: by its constructor, its fields or its bases."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from regente.config.signatures.annotations import ANYTHING, NULL, Annotation, AnyOf, understand
from regente.config.signatures.expressions import NOT_LITERAL, literal
from regente.config.signatures.lookup import Found, Line, base_line, lineage, readable
from regente.config.signatures.modules import Module, Unreadable

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Parameter:
    name: str
    required: bool
    default: object = NOT_LITERAL
    written: ast.expr | None = field(default=None, repr=False)  # its annotation, as it stands in the module
    module: Module | None = field(default=None, repr=False)

    @cached_property
    def annotation(self) -> Annotation | None:
        """What is admitted; an annotation that contradicts its own default is not believed."""
        if self.written is None or self.module is None:
            return None
        stated = understand(self.written, self.module)
        if self.default is NOT_LITERAL or stated.admits(self.default):
            return stated
        return AnyOf((stated, NULL)) if self.default is None else ANYTHING


class Maker(NamedTuple):
    """Where the arguments of a class are written: a function, or the fields of `owner`."""

    owner: Found
    function: Function | None = None


def maker(line: Line) -> Maker | None:
    """The first constructor in the line; None if there is none, so that no argument is taken.

    Raises Unreadable where the source does not say.
    """
    for cls in readable(line):
        own = cls.own("__init__")
        if isinstance(own, Function):
            return Maker(cls, own)
        decorators = {cls.module.absolute(_called(each)) for each in cls.class_node.decorator_list}
        if own or any(each.partition(".")[0] in ("attr", "attrs") for each in decorators):
            raise Unreadable(f"the constructor of {cls.path} is made at run time")
        if _has_fields(cls):
            return Maker(cls)
        own = cls.own("__new__")
        if isinstance(own, Function) and not (own.args.vararg and own.args.kwarg):
            return Maker(cls, own)
    return None


def of_function(function: Function, module: Module, bound: bool) -> dict[str, Parameter]:
    """The parameters by name, without the first one where it is `bound`: self, cls."""
    said = function.args
    positional = [*said.posonlyargs, *said.args]
    required = [None] * (len(positional) - len(said.defaults))
    rows = zip(positional + said.kwonlyargs, required + said.defaults + said.kw_defaults, strict=True)
    return {
        arg.arg: Parameter(arg.arg, not default, literal(default), arg.annotation, module)
        for arg, default in list(rows)[bound:]
    }


def of_class(line: Line) -> tuple[dict[str, Parameter], bool]:
    """The parameters of a class, and whether it may take more."""
    try:
        made = maker(line)
    except Unreadable:
        return {}, True
    if made is None or made.function is None:
        return _fields(made.owner) if made else {}, False
    own, rest = of_function(made.function, made.owner.module, bound=True), made.function.args.kwarg
    if rest is None:
        return own, False
    nodes = list(ast.walk(made.function))
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == rest.arg]
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        handed_on = any(keyword.arg is None and keyword.value in uses for keyword in call.keywords)
        if handed_on and (above := next_in_line(made.owner, call)):
            inherited, more = of_class(above.line)
            given = {*own, *above.handed(inherited)}
            free = {name: each for name, each in inherited.items() if name not in given}
            return own | free, more or len(uses) > 1
    return own, True


class Above(NamedTuple):
    """A call of the constructor of the next class in line."""

    line: Line
    arguments: list[ast.expr]
    keywords: list[ast.keyword]

    def handed(self, parameters: dict[str, Parameter]) -> dict[str, ast.expr]:
        """What the call gives to which of the `parameters`."""
        starred = [isinstance(each, ast.Starred) for each in self.arguments]
        plain = self.arguments[: starred.index(True)] if True in starred else self.arguments
        return dict(zip(parameters, plain, strict=False)) | {k.arg: k.value for k in self.keywords if k.arg}


def next_in_line(owner: Found, call: ast.Call) -> Above | None:
    match call:
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__")):
            return Above(lineage(owner)[1:], call.args, call.keywords)
        case ast.Call(func=ast.Attribute(value=base, attr="__init__"), args=[ast.Name(id="self"), *_]):
            return Above(base_line(owner, base), call.args[1:], call.keywords)
    return None


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _has_fields(cls: Found) -> bool:
    names = [*map(_called, cls.class_node.decorator_list), *map(ast.unparse, cls.class_node.bases)]
    return any(name.rpartition(".")[2] in ("dataclass", "NamedTuple") for name in names)


def _fields(cls: Found) -> dict[str, Parameter]:
    """The parameters of a dataclass, which are its fields and those that it inherits."""
    owners = [each for _, each in reversed(lineage(cls)) if each and _has_fields(each)]
    return {field.name: field for owner in owners for field in _own_fields(owner)}


def _own_fields(cls: Found) -> Iterator[Parameter]:
    for statement in cls.class_node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        kind, default = ast.unparse(statement.annotation), statement.value
        options: dict[str | None, ast.expr] = {}
        if isinstance(default, ast.Call) and _called(default).rpartition(".")[2] == "field":
            options = {option.arg: option.value for option in default.keywords}
            default = options.get("default") or options.get("default_factory")
        if "KW_ONLY" not in kind and "ClassVar" not in kind and literal(options.get("init")) is not False:
            value = NOT_LITERAL if "default_factory" in options else literal(default)
            yield Parameter(statement.target.id, not default, value, statement.annotation, cls.module)
