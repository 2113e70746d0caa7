"""The settings that the code refuses by itself: `if not 0.0 <= lr: raise ValueError(...)`."""

import ast
import re
from collections.abc import Generator
from contextlib import suppress

from regente.config.signatures.classes import Function, Maker, maker, next_in_line, of_class
from regente.config.signatures.expressions import NOT_LITERAL, evaluate, verdict
from regente.config.signatures.lookup import Found, Line, lineage
from regente.config.signatures.modules import TargetNotFound, Unreadable
from regente.config.signatures.targets import Signature

_PAIRS = ((ast.Lt, ast.GtE), (ast.Gt, ast.LtE), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn), (ast.Is, ast.IsNot))
_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_NAME = re.compile(r"""(?<![\w.'"])(?:self\.|cls\.)?[A-Za-z_]\w*""")
Rules = tuple[str, ...]  # broken on the way to a statement, in terms of the target's own parameters
Refusals = Generator[tuple[Rules, str], None, bool]  # with the code's message; returns whether the way ends


def refusals(signature: Signature, arguments: dict[str, object]) -> list[tuple[str, str, str]]:
    """The parameter, the rule and the code's own message of each error that these arguments run into.

    Of a parameter that is filled in later (`_partial_`), pass any object() as its value.
    """
    made, found = None, signature.found
    if arguments and found and isinstance(found.node, Function):
        made = Maker(found, found.node)
    elif arguments and found and signature.kind == "class":
        made = _maker(lineage(found))
    if made is None:
        return []
    defaults = {name: each.default for name, each in signature.parameters.items() if not each.required}
    values = {name: value for name, value in (defaults | arguments).items() if value is not NOT_LITERAL}
    messages: dict[tuple[str, str], str] = {}
    for rules, message in _Walk(made, values, {name: name for name in values}).refusals():
        names = (name for rule in reversed(rules) for name in _NAME.findall(rule))
        if blamed := next((name for name in names if name in arguments), None):
            messages.setdefault((blamed, rules[-1]), message)
    return [(name, rule, message) for (name, rule), message in messages.items()]


def _maker(line: Line) -> Maker | None:
    with suppress(Unreadable):
        return maker(line)
    return None


class _Values(dict[str, object]):
    """What is known of names; of one that the function never binds, the constant of its class or module."""

    def __init__(self, owner: Found, local: set[str], values: dict[str, object]) -> None:
        super().__init__(values)
        self.owner, self.local = owner, local

    def __missing__(self, name: str) -> object:
        if name in self.local:
            raise KeyError(name)
        meanings, (holder, _, last) = self.owner.module.contents.names.get(name, []), name.rpartition(".")
        if isinstance(self.owner.node, ast.ClassDef) and holder in ("self", "cls", self.owner.name):
            with suppress(TargetNotFound, Unreadable):
                meanings = [self.owner.reach(last).node or ""]
        match meanings:
            case [ast.Constant() | ast.Tuple() | ast.List() | ast.Set() | ast.Dict() | ast.UnaryOp() as node]:
                return evaluate(node, {})
        raise KeyError(name)


class _Walk:
    """The way through a function's body as these values take it, as far as that can be told."""

    def __init__(self, made: Maker, values: dict[str, object], meaning: dict[str, str]) -> None:
        function: ast.AST | None = made.function
        if function is None:  # a dataclass
            values = {f"self.{name}": value for name, value in values.items()}
            meaning = {f"self.{name}": value for name, value in meaning.items()}
            with suppress(TargetNotFound, Unreadable):
                function = made.owner.reach("__post_init__").node
        self.owner, self.body = made.owner, function.body if isinstance(function, Function) else []
        local = {node.arg for node in ast.walk(function or ast.Pass()) if isinstance(node, ast.arg)}
        self.values = _Values(made.owner, local | _stored(self.body), values)
        self.meaning = meaning  # of the names in values, in terms of the target's own parameters

    def refusals(self) -> Refusals:
        return self._through(self.body, ())

    def _through(self, body: list[ast.stmt], broken: Rules) -> Refusals:
        for statement in body:
            returns = any(isinstance(node, ast.Return) for node in ast.walk(statement))
            match statement:
                case ast.Raise(exc=error):
                    words = error.args[0] if isinstance(error, ast.Call) and error.args else None
                    if broken:
                        yield broken, self._message(words)
                    return not broken
                case ast.Assert(test=test, msg=words) if verdict(test, self.values) is False:
                    yield (*broken, self._said(test)), self._message(words)
                case ast.If(test=test) if (truth := verdict(test, self.values)) is not None:
                    there = (*broken, self._said(_negated(test) if truth else test))
                    if (yield from self._through(statement.body if truth else statement.orelse, there)):
                        return True
                    broken = there if returns else broken
                    continue
                case ast.Expr(value=ast.Call() as call) if isinstance(self.owner.node, ast.ClassDef):
                    yield from self._inherited(call)
            if returns:
                return True
            self._note(statement)
        return False

    def _note(self, statement: ast.stmt) -> None:
        """Forgets what the statement binds, except that `self.mode` may be `mode` from now on."""
        for name in _stored([statement]):
            self.values.pop(name, None)
        match statement:
            case ast.Assign(targets=[ast.Attribute() as kept], value=ast.Name(id=name)):
                if name in self.values:
                    alias = ast.unparse(kept)
                    self.values[alias], self.meaning[alias] = self.values[name], self.meaning[name]

    def _inherited(self, call: ast.Call) -> Refusals:
        """What the next class in line refuses of what the call hands on."""
        above = next_in_line(self.owner, call)
        made = _maker(above.line) if above else None
        if above is None or made is None:
            return False
        theirs, _ = of_class(above.line)
        handed = above.handed(theirs)
        if any(keyword.arg is None for keyword in above.keywords):  # **kwargs
            rest = (self.values.keys() & theirs) - self.values.local - handed.keys()
            handed |= {name: ast.Name(name) for name in rest}
        values = {n: p.default for n, p in theirs.items() if n not in handed and p.default is not NOT_LITERAL}
        meaning = {name: repr(default) for name, default in values.items()}
        for name, written in handed.items():
            with suppress(Exception):  # it cannot be told
                values[name], meaning[name] = evaluate(written, self.values), self._said(written)
        return (yield from _Walk(made, values, meaning).refusals())

    def _message(self, written: ast.expr | None) -> str:
        """The code's own words, or the first that can be told of them."""
        with suppress(Exception):
            return str(evaluate(written or ast.Constant(""), self.values))
        constants = (node.value for node in ast.walk(written or ast.Pass()) if isinstance(node, ast.Constant))
        return next((each for each in constants if isinstance(each, str)), "")

    def _said(self, node: ast.expr) -> str:
        return _NAME.sub(lambda found: self._meant(found[0]), ast.unparse(node))

    def _meant(self, name: str) -> str:
        if name in self.values:
            return self.meaning[name]
        with suppress(Exception):
            value = self.values[name]  # a constant; of a mapping the keys are enough
            return repr(list(value) if isinstance(value, dict) else value)
        return name


def _negated(node: ast.expr) -> ast.expr:
    """The condition that holds exactly where `node` does not, as a person would write it."""
    match node:
        case ast.UnaryOp(op=ast.Not()):
            return node.operand
        case ast.Compare(ops=[op]):
            return ast.Compare(node.left, [_OPPOSITE[type(op)]()], node.comparators)
        case ast.BoolOp(op=op, values=values):
            return ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), [*map(_negated, values)])
    return ast.UnaryOp(ast.Not(), node)


def _stored(body: list[ast.stmt]) -> set[str]:
    """The names and attributes that the statements bind."""
    nodes = (node for statement in body for node in ast.walk(statement))
    names = (node for node in nodes if isinstance(node, ast.Name | ast.Attribute))
    return {ast.unparse(name) for name in names if not isinstance(name.ctx, ast.Load)}
