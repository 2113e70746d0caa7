"""The parameters of a function, and those of a class: by its constructor, its fields or its bases."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from regente.config.signatures.annotations import (
    ANYTHING,
    EXACT,
    NOT_LITERAL,
    Annotation,
    literal,
    optional,
    parse_annotation,
)
from regente.config.signatures.lookup import Found, Lineage, lineage, readable
from regente.config.signatures.modules import Module, Unreadable

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Parameter:
    name: str
    required: bool
    default: object = NOT_LITERAL
    written: ast.expr | None = field(default=None, repr=False)  # its annotation, as the module writes it
    module: Module | None = field(default=None, repr=False)
    owner: str = ""  # the dotted path of the class whose constructor takes it

    @cached_property
    def annotation(self) -> Annotation:
        """The values that it takes; an annotation that contradicts its own default is ignored."""
        if self.written is None or self.module is None:
            return ANYTHING
        stated = parse_annotation(self.written, self.module)
        if not self.module.name.startswith(EXACT):
            stated = stated.loose()
        if self.default is NOT_LITERAL or stated.allows(self.default):
            return stated
        return optional(stated) if self.default is None else ANYTHING


Parameters = dict[str, Parameter]


def of_function(function: Function, module: Module, bound: bool, owner: str = "") -> Parameters:
    """The parameters by name, without the first one where it is `bound`: self, cls."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    required = [None] * (len(positional) - len(args.defaults))
    rows = zip(positional + args.kwonlyargs, required + args.defaults + args.kw_defaults, strict=True)
    return {
        arg.arg: Parameter(arg.arg, not default, literal(default), arg.annotation, module, owner)
        for arg, default in list(rows)[bound:]
    }


def of_class(line: Lineage) -> tuple[Parameters, bool]:
    """The parameters of a class, and whether it may take more."""
    try:
        found = _constructor(line)
    except Unreadable:
        return {}, True
    if found is None:
        return {}, False
    owner, function = found
    if function is None:
        return {name: replace(each, owner=owner.path) for name, each in _fields(owner).items()}, False
    own, rest = of_function(function, owner.module, True, owner.path), function.args.kwarg
    if rest is None:
        return own, False
    nodes = list(ast.walk(function))
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == rest.arg]
    for call in (node for node in nodes if isinstance(node, ast.Call) and _is_inherited(node)):
        if any(keyword.arg is None and keyword.value in uses for keyword in call.keywords):
            inherited, more = of_class(lineage(owner)[1:])
            given = {*own, *_given(call, inherited)}
            free = {name: each for name, each in inherited.items() if name not in given}
            return own | free, more or len(uses) > 1
    return own, True


def _constructor(line: Lineage) -> tuple[Found, Function | None] | None:
    """The first class of the lineage with a constructor, or with fields (None); None where there is no such class.

    Raises Unreadable where the source does not tell.
    """
    for cls in readable(line):
        own = cls.own("__init__")
        if isinstance(own, Function):
            return cls, own
        decorators = {cls.module.absolute(_called(each)) for each in cls.class_node.decorator_list}
        at_run_time = any(each.partition(".")[0] in ("attr", "attrs") for each in decorators)
        if own or at_run_time or cls.own("__new__"):
            raise Unreadable(f"the constructor of {cls.path} is made at run time")
        if _has_fields(cls):
            return cls, None
    return None


def _is_inherited(call: ast.Call) -> bool:
    """Whether the call is `super().__init__(...)`."""
    match call.func:
        case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"):
            return True
    return False


def _given(call: ast.Call, parameters: Parameters) -> set[str]:
    """Which of the parameters the call gives by itself."""
    starred = [isinstance(each, ast.Starred) for each in call.args]
    count = starred.index(True) if True in starred else len(starred)
    return {*list(parameters)[:count], *(keyword.arg for keyword in call.keywords if keyword.arg)}


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _has_fields(cls: Found) -> bool:
    names = [*map(_called, cls.class_node.decorator_list), *map(ast.unparse, cls.class_node.bases)]
    return any(name.rpartition(".")[2] in ("dataclass", "NamedTuple") for name in names)


def _fields(cls: Found) -> Parameters:
    """The parameters of a dataclass: its fields and those that it inherits."""
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
