"""The value of an expression, by an interpreter that gives up on all it does not know."""

import ast
import operator
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

NOT_LITERAL = object()  # the value of what is missing or no literal
PLAIN = (NoneType, bool, int, float, str, list, tuple, dict)
Operator = Callable[[Any, Any], object]

_CALLS: dict[str, Callable[..., object]] = {f.__name__: f for f in (len, abs, min, max, sum, round, sorted)}
_CALLS |= {t.__name__: t for t in (float, int, str, bool, list, tuple, set)}
_METHODS = {"join", "keys", "values", "lower", "upper", "strip", "startswith", "endswith", "format"}
_TYPES = {t.__name__: t for t in (int, float, str, bool, list, tuple, dict, complex, bytes, set)}
_BINARY: dict[type[ast.operator], Operator] = {ast.Add: operator.add, ast.Sub: operator.sub}
_BINARY |= {ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv}
_BINARY |= {ast.Mod: operator.mod}
_COMPARE: dict[type[ast.cmpop], Operator] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
_COMPARE |= {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}
_COMPARE |= {ast.Is: operator.is_, ast.IsNot: operator.is_not}
_COMPARE |= {ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b}


def is_plain(value: object) -> bool:
    """Whether `value` is YAML data, and no object and nothing that Hydra makes an object of."""
    return isinstance(value, PLAIN) and not (isinstance(value, dict) and "_target_" in value)


def literal(node: ast.expr | None) -> Any:
    """The value of a literal, else NOT_LITERAL."""
    try:
        return ast.literal_eval(node) if node else NOT_LITERAL
    except (ValueError, TypeError):
        return NOT_LITERAL


def verdict(node: ast.expr, values: Mapping[str, object]) -> bool | None:
    """Whether the condition is true of `values` (by dotted name); None where that cannot be told."""
    try:
        return _truth(evaluate(node, values))
    except Exception:  # the code under judgement may do anything
        return None


def evaluate(node: ast.expr, values: Mapping[str, object]) -> Any:
    """The value of the expression.

    Raises LookupError where it is not known, and whatever the expression itself would raise.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() | ast.Attribute():
            return values[ast.unparse(node)]
        case ast.Tuple():
            return tuple(evaluate(each, values) for each in node.elts)
        case ast.List() | ast.Set():
            return [evaluate(each, values) for each in node.elts]
        case ast.Dict():  # of a mapping to objects the keys are enough
            pairs = [(key, each) for key, each in zip(node.keys, node.values, strict=True) if key]
            return {evaluate(key, values): _value_or_object(each, values) for key, each in pairs}
        case ast.UnaryOp(op=ast.Not()):
            return not _truth(evaluate(node.operand, values))
        case ast.UnaryOp(op=ast.USub()):
            return -evaluate(node.operand, values)
        case ast.BoolOp():
            return _both_or_either(node, values)
        case ast.Compare():
            return _compared(node, values)
        case ast.BinOp() if type(node.op) in _BINARY:
            return _BINARY[type(node.op)](evaluate(node.left, values), evaluate(node.right, values))
        case ast.Subscript():
            item = evaluate(node.value, values)[evaluate(node.slice, values)]
            if is_plain(item):
                return item
        case ast.JoinedStr():
            return "".join(_replaced(part, values) for part in node.values)
        case ast.Call(func=ast.Name(id="isinstance"), args=[of, types]):
            return _is_instance(evaluate(of, values), types)
        case ast.Call(keywords=[]):
            return _called(node, values)
    raise LookupError


def _truth(value: object) -> bool:
    if not is_plain(value) and not isinstance(value, set):
        raise LookupError
    return bool(value)


def _value_or_object(node: ast.expr, values: Mapping[str, object]) -> object:
    try:
        return evaluate(node, values)
    except Exception:
        return object()


def _both_or_either(node: ast.BoolOp, values: Mapping[str, object]) -> bool:
    decisive = isinstance(node.op, ast.Or)
    verdicts = [verdict(each, values) for each in node.values]
    if decisive not in verdicts and None in verdicts:
        raise LookupError
    return decisive if decisive in verdicts else not decisive


def _compared(node: ast.Compare, values: Mapping[str, object]) -> bool:
    left = evaluate(node.left, values)
    for op, written in zip(node.ops, node.comparators, strict=True):
        right = evaluate(written, values)
        if not isinstance(op, ast.Is | ast.IsNot) and not (is_plain(left) and is_plain(right)):
            raise LookupError
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _called(node: ast.Call, values: Mapping[str, object]) -> object:
    arguments = [evaluate(each, values) for each in node.args]
    if isinstance(node.func, ast.Name) and all(map(is_plain, arguments)):
        if node.func.id in _CALLS:
            return _CALLS[node.func.id](*arguments)
    elif isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
        owner = evaluate(node.func.value, values)
        if isinstance(owner, str | dict):
            found = getattr(owner, node.func.attr)(*arguments)
            return found if isinstance(found, str | bool) else list(found)
    raise LookupError


def _is_instance(value: object, types: ast.expr) -> bool:
    options = [types]
    if isinstance(types, ast.Tuple):
        options = types.elts
    elif isinstance(types, ast.BinOp):
        options = [types.left, types.right]
    names = [ast.unparse(each) for each in options]
    if is_plain(value) and isinstance(value, tuple(_TYPES[name] for name in names if name in _TYPES)):
        return True
    if not is_plain(value) or not all(name in _TYPES or name in ("Tensor", "torch.Tensor") for name in names):
        raise LookupError
    return False


def _replaced(part: ast.expr, values: Mapping[str, object]) -> str:
    """A part of an f-string; what cannot be told stays in braces."""
    if not isinstance(part, ast.FormattedValue):
        return str(evaluate(part, values))
    try:
        value = evaluate(part.value, values)
    except Exception:
        return "{" + ast.unparse(part.value) + "}"
    return repr(value) if part.conversion == ord("r") else str(value)
