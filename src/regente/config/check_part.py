"""What is wrong with one part of a config: its class, or its arguments."""

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regente.config.limits import RELATIONS, is_below, limit_of
from regente.config.own_settings import GROUP_KEYS, OWN_SETTINGS
from regente.config.signatures import Signature, TargetNotFound, read
from regente.config.task_parts import OPTIONAL, given_to
from regente.errors import Problem

# Arguments that Regente gives to a part itself
SET_BY_REGENTE = {
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "trainer": ("callbacks", "logger", "enable_checkpointing"),
}
NAMED = ("callbacks", "loggers", "metrics")  # groups that hold parts by name
# Arguments that get a value where the config has none
FILLED = {"loggers": ("save_dir", "name", "version")}
# Modules of the standard library whose functions run code or touch files
NO_COMPONENTS = {
    "builtins",
    "importlib",
    "os",
    "posix",
    "pty",
    "runpy",
    "shutil",
    "socket",
    "subprocess",
    "sys",
}
# What the target of a part must derive from, and the name of that in a message
BASE_CLASSES = {
    "data": ("pytorch_lightning.LightningDataModule", "a LightningDataModule"),
    "model": ("torch.nn.Module", "a torch.nn.Module"),
    "task": ("pytorch_lightning.LightningModule", "a LightningModule"),
    "optimizer": ("torch.optim.Optimizer", "a torch optimizer"),
    "trainer": ("pytorch_lightning.Trainer", "Lightning's Trainer"),
    "callbacks": ("pytorch_lightning.Callback", "a Lightning callback"),
    "loggers": ("pytorch_lightning.loggers.Logger", "a Lightning logger"),
    "metrics": ("torchmetrics.Metric", "a metric of torchmetrics"),
}


def part_problems(where: str, node: Any) -> list[Problem]:
    """The problems of one part, or of a node inside of a part; `where` is its dotted key in the config."""
    if not isinstance(node, dict) or "_target_" not in node:
        what = "has no _target_, the class to make"
        group = where.partition(".")[0]
        if group in NAMED and isinstance(node, dict):
            what = f"no such {group[:-1]} here, and it {what}; give {group}.NAME._target_, or mend the name"
        return [Problem(where, what)]
    target = node["_target_"]
    if not isinstance(target, str) or _is_standard(target):
        return _standard_library_problems(f"{where}._target_", target, nested=not _part(where))
    try:
        signature = read(target)
    except SyntaxError as error:
        return [Problem(f"{where}._target_", f"{error.filename}:{error.lineno}: {error.msg}; mend that line")]
    except TargetNotFound as error:
        hint = _hidden_file(target) or (f"; did you mean {error.closest[0]}?" if error.closest else "")
        return [Problem(f"{where}._target_", f"{target}: {error.part} not found{hint}")]
    return list(_class_problems(where, signature)) or list(_argument_problems(where, node, signature))


def _is_standard(target: str) -> bool:
    return target.partition(".")[0] in sys.stdlib_module_names or hasattr(builtins, target)


def _standard_library_problems(where: str, target: Any, *, nested: bool) -> list[Problem]:
    """An argument may be of the standard library: pathlib.Path, datetime.timedelta, functools.partial."""
    if (
        not nested
        or not isinstance(target, str)
        or "." not in target
        or target.split(".")[0] in NO_COMPONENTS
    ):
        return [Problem(where, f"refused: {target} is not a component{_hidden_file(target)}")]
    module, _, name = target.rpartition(".")
    try:
        known = _members(module)
    except (ImportError, ValueError):
        return [Problem(where, f"{target}: {module or target} not found")]
    if name in known:
        return []
    close = get_close_matches(name, known, n=1)
    return [Problem(where, f"{target}: {name} not found" + (f"; did you mean {close[0]}?" if close else ""))]


def _hidden_file(target: Any) -> str:
    """The hint that a file of the user's has the name of a module that Python finds first."""
    first = str(target).partition(".")[0]
    here = next((name for name in (f"{first}.py", f"{first}/__init__.py") if Path(name).is_file()), None)
    if here is None:
        return ""
    with suppress(ImportError, ValueError):  # as of a module of C
        found = importlib.util.find_spec(first)
        if found is not None and Path(str(found.origin)).resolve() == Path(here).resolve():
            return ""
    return f"; Python has a module {first} of its own or installed, so {here} is not found: rename it"


def _members(path: str) -> list[str]:
    """The names in a module, or in a class of one, such as datetime.date."""
    try:
        return dir(importlib.import_module(path))
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name, None)
        if not isinstance(found, type):
            raise
        return dir(found)


def _part(where: str) -> str:
    """Which of the config's parts a node is; empty for a node inside of a part, such as data.augment."""
    root, *inner = where.split(".")
    return root if len(inner) == (root in NAMED) else ""


def _class_problems(where: str, signature: Signature) -> Iterator[Problem]:
    base, name = BASE_CLASSES.get(_part(where), ("", ""))
    if base and signature.kind == "class" and signature.derives_from(base) is False:
        yield Problem(f"{where}._target_", f"{_class_name(signature)} is not {name}")


def _argument_problems(where: str, node: dict[str, Any], signature: Signature) -> Iterator[Problem]:
    part = _part(where)
    reserved = () if part == "task" else SET_BY_REGENTE.get(part, ())
    filled = (*reserved, *FILLED.get(part, ()))
    given = [*given_to(node), *OPTIONAL] if part == "task" else filled  # check.py looks at the optional ones
    arguments = {key: each for key, each in node.items() if not key.startswith("_")}
    own = {key: each for key, each in OWN_SETTINGS.get(part, {}).items() if key not in signature.parameters}
    if part == "optimizer" and own["groups"].allows(node.get("groups")):
        yield from _group_problems(node.get("groups") or {}, signature, node)
    for key in [key for key in own if key in arguments]:
        if not own[key].allows(value := arguments.pop(key)):
            yield Problem(f"{where}.{key}={shorten(value)}", own[key].message)
    for key in [key for key in arguments if key in reserved]:
        if arguments.pop(key) not in (None, True):
            what = "is set by Regente; see the groups callbacks, loggers and tracking, or leave it out"
            yield Problem(f"{where}.{key}", what)
    if not signature.open:
        settings = [name for name in [*signature.parameters, *own] if name not in reserved]
        yield from unknown_settings(where, arguments, settings, _class_name(signature))
    yield from _missing(where, node, signature, [*arguments, *given])
    fitting = {}
    for name, value in arguments.items():
        if found := list(_value_problems(f"{where}.{name}", name, value, signature, node)):
            yield from found
        else:
            fitting[name] = value
    yield from _nested_problems(f"{where}._args_", node.get("_args_"), node)
    yield from _relation_problems(where, fitting, [*arguments, *node], signature)


def _group_problems(groups: dict[str, Any], signature: Signature, node: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the parameter groups of an optimizer, whose settings are those of its class."""
    for name, group in groups.items():
        where = f"optimizer.groups.{name}"
        settings = {key: each for key, each in group.items() if key not in GROUP_KEYS}
        known = [key for key in signature.parameters if key not in SET_BY_REGENTE["optimizer"]]
        if not signature.open:
            yield from unknown_settings(where, settings, [*GROUP_KEYS, *known], _class_name(signature))
        for key, value in settings.items():
            yield from _value_problems(f"{where}.{key}", key, value, signature, node)
        for key in [key for key in GROUP_KEYS if key in group and not GROUP_KEYS[key].allows(group[key])]:
            yield Problem(f"{where}.{key}={shorten(group[key])}", GROUP_KEYS[key].message)
        if not {"names", "dims"} & group.keys():
            yield Problem(where, "says no parameters; give it names, such as ['*.bias'], or dims=1")
        if {"lr", "lr_factor"} <= group.keys():
            yield Problem(f"{where}.lr", "goes without lr_factor; give one of them")


def _missing(
    where: str, node: dict[str, Any], signature: Signature, given: Collection[str]
) -> Iterator[Problem]:
    """The required arguments that nobody gives; a nested `_partial_` is called with more arguments later."""
    if node.get("_partial_") and _part(where) in ("", "loss"):
        return
    positional = list(signature.parameters)[: len(node.get("_args_") or ())]
    for name, parameter in signature.parameters.items():
        if parameter.required and name not in given and name not in positional:
            what = f"has no value, and {_class_name(signature)} needs one; give it: {where}.{name}=..."
            yield Problem(f"{where}.{name}", what)


def _value_problems(
    where: str, name: str, value: Any, signature: Signature, node: dict[str, Any]
) -> Iterator[Problem]:
    """What is wrong with the value of one argument."""
    yield from _nested_problems(where, value, node)
    if (parameter := signature.parameters.get(name)) and not _is_node(value):
        limit = limit_of(parameter.owner, name)
        if where.startswith("loss.") and isinstance(value, list) and parameter.annotation.takes_tensor:
            return  # such as the weights of the classes, which become a tensor
        if not parameter.annotation.allows(value):
            yield Problem(f"{where}={shorten(value)}", f"needs {parameter.annotation}")
        elif limit is not None and value != parameter.default and not limit.allows(value):
            yield Problem(f"{where}={shorten(value)}", f"{limit.message} ({_class_name(signature)})")


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _nested_problems(where: str, value: Any, node: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the nodes in a value of `node`, in its lists and mappings too."""
    if node.get("_recursive_") is False:  # the class itself makes the objects, with arguments of its own
        return
    if _is_node(value):
        yield from part_problems(where, value)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _nested_problems(f"{where}.{key}", each, node)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _nested_problems(f"{where}[{number}]", each, node)


def _relation_problems(
    where: str, arguments: dict[str, Any], given: Collection[str], signature: Signature
) -> Iterator[Problem]:
    """Arguments that do not fit each other; `arguments` are those of the `given` ones that are right by themselves."""
    parameters = signature.parameters
    values = {name: each.default for name, each in parameters.items() if name not in given} | arguments
    for relation in RELATIONS:
        blamed = next((name for name in relation.between if name in arguments), None)
        owners = [parameters[name].owner for name in relation.between if name in parameters]
        # a class of the user's may give one of the names a meaning of its own
        if blamed not in parameters or not all(is_below(each, relation.owner) for each in owners):
            continue
        with suppress(KeyError, TypeError):  # a value that is not known is no reason to refuse
            if not relation.holds(*(values[name] for name in relation.between)):
                yield Problem(f"{where}.{blamed}={shorten(arguments[blamed])}", relation.message)


def _class_name(signature: Signature) -> str:
    """The class's own name, without its module; that of the target where the source does not tell."""
    return (signature.name or signature.target).rpartition(".")[2]


def unknown_settings(
    where: str, keys: Collection[str], known: Collection[str], owner: str
) -> Iterator[Problem]:
    """A problem for each key that is no setting of `owner`, with the closest one that is."""
    for key in keys:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {where}.{close[0]}?" if close else f"{owner} takes: {', '.join(known)}"
            yield Problem(f"{where}.{key}", f"no such setting; {hint}")


def shorten(value: Any) -> str:
    """A value in a message, in at most 60 characters."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
