"""Step 2 of a run: every reason why a composed config cannot run, all at once, before torch is imported."""

import re
import sys
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regente.config import tracking_uri
from regente.config.compose import ROOT_KEYS, Monitor, Tracking
from regente.config.discovery import groups, options
from regente.config.own_settings import FINDERS, OURS, Limit
from regente.config.signatures import Signature, TargetNotFound, read, refusals
from regente.errors import Problem

# Arguments that Regente gives itself, by the place of the node
GIVEN = {
    "task": ("model", "optimizer", "scheduler", "monitor", "take_steps"),
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "trainer": (
        *("callbacks", "logger", "default_root_dir"),
        *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
    ),
}
# What the target of a node must derive from, and how that is called
KINDS = {
    "data": ("pytorch_lightning.LightningDataModule", "a LightningDataModule"),
    "model": ("torch.nn.Module", "a torch.nn.Module"),
    "task": ("pytorch_lightning.LightningModule", "a LightningModule"),
    "optimizer": ("torch.optim.Optimizer", "a torch optimizer"),
    "trainer": ("pytorch_lightning.Trainer", "Lightning's Trainer"),
    "callbacks": ("pytorch_lightning.Callback", "a Lightning callback"),
}
DEVICES = re.compile(r"auto|-1|\d+|\d+(,\s*\d+)*,?")
# The metrics that can be watched while a task trains
LOGGED = {
    "regente.tasks.classifier.Classifier": ("train/loss", "val/loss", "val/acc"),
    "regente.tasks.regressor.Regressor": ("train/loss", "val/loss", "val/mae"),
    "regente.tasks.language_model.LanguageModel": ("train/loss", "val/loss", "val/acc", "val/perplexity"),
}


_batches = Limit(
    lambda v: v is None or (isinstance(v, int) and v >= 0) or (isinstance(v, float) and 0 <= v <= 1),
    "needs a number of batches, or a share from 0.0 to 1.0",
)
_positive = Limit(lambda v: v is None or v >= 1, "must be at least 1")
_endless = Limit(lambda v: v is None or v >= -1, "must be at least 0, or -1 for no limit")
# Ranges that Lightning checks late or not at all; where a class states its own they are read from its code
LIMITS = {
    "trainer.devices": Limit(
        lambda v: (
            v >= 1 or v == -1 if isinstance(v, int) else not isinstance(v, str) or bool(DEVICES.fullmatch(v))
        ),
        "must be at least 1, -1 or auto for all there are, or a list of numbers",
    ),
    "trainer.max_time": Limit(
        lambda v: not isinstance(v, str) or bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", v)), "needs DD:HH:MM:SS"
    ),
    "trainer.accelerator": Limit(
        lambda v: v in ("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
        "no such accelerator; there is: auto, cpu, gpu, mps",
    ),
    "trainer.strategy": Limit(
        lambda v: not isinstance(v, str) or not any(word in v for word in ("spawn", "fork", "notebook")),
        "ranks are started by Regente itself; use ddp",
    ),
    "trainer.num_nodes": _positive,
    "trainer.max_epochs": _endless,
    "trainer.min_epochs": _positive,
    "trainer.max_steps": _endless,
    "trainer.accumulate_grad_batches": _positive,
    "trainer.log_every_n_steps": _positive,
    "trainer.check_val_every_n_epoch": _positive,
    "trainer.gradient_clip_val": Limit(lambda v: v is None or v >= 0, "must be at least 0"),
    "trainer.gradient_clip_algorithm": Limit(lambda v: v in (None, "norm", "value"), "must be norm or value"),
    "trainer.val_check_interval": Limit(
        lambda v: v is None or isinstance(v, str | dict) or (v >= 1 if isinstance(v, int) else 0 < v <= 1),
        "needs a number of batches from 1 on, or a share of an epoch above 0.0 up to 1.0",
    ),
    "trainer.num_sanity_val_steps": Limit(
        lambda v: v is None or v >= -1, "must be at least 0, or -1 for all"
    ),
    "trainer.limit_train_batches": _batches,
    "trainer.limit_val_batches": _batches,
    "trainer.limit_test_batches": _batches,
    "trainer.overfit_batches": _batches,
    "monitor.mode": Limit(lambda v: v in ("min", "max"), "must be min or max"),
    "tracking.checkpoints": Limit(
        lambda v: v in ("none", "best", "last", "top_k"), "must be none, best, last or top_k"
    ),
}


def check(
    config: dict[str, Any],
    parts: Collection[str] | None = None,
    known: dict[str, list[Problem]] | None = None,
) -> list[Problem]:
    """The problems of a resolved config; none means that it can run, machine and data permitting.

    With `parts`, only these root keys are held against their signatures. `known` keeps what was found about each part:
    of the thousand jobs of a sweep most have most parts in common.
    """
    known = {} if known is None else known
    problems = [*_roots(config), *_seed(config)]
    if not problems and (parts is None or "tracking" in parts):
        problems += tracking_uri.problems(
            config["tracking"]["uri"], Path.cwd(), create=config["tracking"]["create"]
        )
    for where, node in _nodes(config):
        if parts is None or where.partition(".")[0] in parts:
            text = f"{where}={node!r}"
            if text not in known:
                known[text] = part_problems(where, node)
            problems += [each for each in known[text] if not problems or ".seed=" not in each.where]
    problems += _limits(config) if not problems else []
    return problems + (_agreements(config) if not problems else [])


def _roots(config: dict[str, Any]) -> Iterator[Problem]:
    for key in [key for key in config if key not in ROOT_KEYS]:
        if key in groups():
            yield Problem(key, "a group whose settings are elsewhere in the config; --cfg job shows where")
        else:
            close = get_close_matches(key, [*ROOT_KEYS, "hydra"], n=1)
            kind = "group" if close and close[0] in groups() else "setting"
            hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(ROOT_KEYS)}"
            yield Problem(key, f"no such {kind}; {hint}")
    for key, value in config.items():
        if value is None and key in groups():
            option = f"; nothing is {key}=none" if "none" in groups()[key] else ""
            yield Problem(key, f"is null; {options(key)}{option}")
    for place, fields in (("monitor", Monitor), ("tracking", Tracking)):
        yield from _unknown(place, list(config[place]), fields.__dataclass_fields__, place)


def _seed(config: dict[str, Any]) -> Iterator[Problem]:
    """The root's seed first: parts that refer to it would only repeat what is wrong with it."""
    if not 0 <= config["seed"] < 2**32:
        yield Problem(f"seed={config['seed']}", "must be from 0 to 4294967295")


def _nodes(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part with its dotted place; a callback that is null is off."""
    for key in ("data", "model", "task", "optimizer", "scheduler", "trainer"):
        if config[key] is not None and (key != "scheduler" or config[key].get("_target_")):
            yield key, config[key]
    for name, node in (config["callbacks"] or {}).items():
        if node is not None:
            yield f"callbacks.{name}", node


def part_problems(where: str, node: Any) -> list[Problem]:
    """What is wrong with one part, whose place in the config is `where`: its class, or its arguments."""
    if not isinstance(node, dict) or "_target_" not in node:
        what = "has no _target_, the class to make"
        if where.startswith("callbacks.") and isinstance(node, dict):
            what = f"no such callback here, and it {what}; give callbacks.NAME._target_, or mend the name"
        return [Problem(where, what)]
    target = node["_target_"]
    if not isinstance(target, str) or target.split(".")[0] in sys.stdlib_module_names:
        return [Problem(f"{where}._target_", f"refused: {target} is not a component")]
    try:
        signature = read(target)
    except SyntaxError as error:
        return [Problem(f"{where}._target_", f"{error.filename}:{error.lineno}: {error.msg}; mend that line")]
    except TargetNotFound as error:
        hint = f"; did you mean {error.closest[0]}?" if error.closest else ""
        return [Problem(f"{where}._target_", f"{target}: {error.part} not found{hint}")]
    return list(_kind(where, signature)) or list(_arguments(where, node, signature))


def _part(where: str) -> str:
    """Which of the config's parts a node is, itself; none for one inside of a part, such as data.augment."""
    root, *inner = where.split(".")
    return root if len(inner) == (root == "callbacks") else ""


def _kind(where: str, signature: Signature) -> Iterator[Problem]:
    base, words = KINDS.get(_part(where), ("", ""))
    if base and signature.kind == "class" and signature.derives_from(base) is False:
        yield Problem(f"{where}._target_", f"{target_name(signature)} is not {words}")


def _arguments(where: str, node: dict[str, Any], signature: Signature) -> Iterator[Problem]:
    given = GIVEN.get(_part(where), ())
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    ours = {key: limit for key, limit in OURS.get(where, {}).items() if key not in signature.parameters}
    for key in [key for key in ours if key in arguments]:
        if not ours[key].admits(value := arguments.pop(key)):
            yield Problem(f"{where}.{key}={_shown(value)}", ours[key].words)
    for key in [key for key in arguments if key in given]:
        yield Problem(
            f"{where}.{key}", "is set by Regente; see the groups callbacks and tracking, or leave it out"
        )
    known = [name for name in [*signature.parameters, *ours] if name not in given]
    if not signature.open:
        yield from _unknown(
            where, [key for key in arguments if key not in given], known, target_name(signature)
        )
    for name, parameter in signature.parameters.items():
        if parameter.required and name not in arguments and name not in given:
            yield Problem(
                f"{where}.{name}",
                f"has no value, and {target_name(signature)} needs one; give it: {where}.{name}=...",
            )
    right = {}
    for name, value in arguments.items():
        annotation = signature.parameters[name].annotation if name in signature.parameters else None
        if isinstance(value, dict) and "_target_" in value:
            yield from part_problems(f"{where}.{name}", value)
        elif annotation is not None and not annotation.admits(value):
            yield Problem(f"{where}.{name}={_shown(value)}", f"needs {annotation}")
        else:
            right[name] = value
    for name, rule, message in refusals(signature, right):
        yield Problem(
            f"{where}.{name}={_shown(right[name])}",
            f"must keep to {rule} ({target_name(signature)}: {message})",
        )


def target_name(signature: Signature) -> str:
    """The class's own name, without its path."""
    return signature.name.rpartition(".")[2]


def _unknown(where: str, keys: list[str], known: Any, owner: str) -> Iterator[Problem]:
    for key in keys:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {where}.{close[0]}?" if close else f"{owner} takes: {', '.join(known)}"
            yield Problem(f"{where}.{key}", f"no such setting; {hint}")


def _limits(config: dict[str, Any]) -> list[Problem]:
    problems = []
    for where, limit in LIMITS.items():
        place, _, key = where.rpartition(".")
        node = config[place] if place else config
        if key in node and not limit.admits(node[key]):
            problems.append(Problem(f"{where}={_shown(node[key])}", limit.words))
    return problems


def _agreements(config: dict[str, Any]) -> list[Problem]:
    """What two parts must agree on."""
    problems = []
    data, model = config["data"], config["model"]
    for key in ("num_classes", "input_shape", "vocab_size", "every_position"):
        if key in data and key in model and data[key] != model[key]:
            what = f"the data has {data[key]}; leave it at ${{data.{key}}}"
            problems.append(Problem(f"model.{key}={_shown(model[key])}", what))
    names, number = data.get("class_names"), data.get("num_classes")
    if isinstance(names, list) and number is not None and len(names) != number:
        what = f"data.class_names has {len(names)} names; one for each class"
        problems.append(Problem(f"data.num_classes={_shown(number)}", what))
    trainer = config["trainer"]
    for key, (part, setting) in FINDERS.items():
        if trainer.get(key) and setting not in config[part]:
            what = f"finds {part}.{setting}, which is no setting here; add it, or leave this out"
            problems.append(Problem(f"trainer.{key}", what))
        if trainer.get(key) and type(trainer.get("devices")) is int and trainer["devices"] > 1:
            what = "takes one device; find it with trainer.devices=1, and give it to the run of several"
            problems.append(Problem(f"trainer.{key}", what))
    if trainer.get("max_time") is not None and trainer.get("max_minutes") is not None:
        problems.append(Problem("trainer.max_time", "goes without trainer.max_minutes; give one of them"))
    if "vocab_size" in data and "vocab_size" not in model and model["_target_"].startswith("regente."):
        what = "does not take numbers of words, which the data gives; use model=lstm"
        problems.append(Problem(f"model._target_={model['_target_']}", what))
    if logged := LOGGED.get(config["task"]["_target_"]):
        watchers = {f"callbacks.{name}": node for name, node in config["callbacks"].items() if node}
        for where, metric in [("monitor.metric", config["monitor"]["metric"])] + [
            (f"{name}.monitor", node.get("monitor")) for name, node in watchers.items()
        ]:
            if metric is not None and metric not in logged:
                close = get_close_matches(metric, logged, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                problems.append(
                    Problem(f"{where}={metric}", f"never logged; {hint}logged: {', '.join(logged)}")
                )
    return list({problem.where.partition("=")[2]: problem for problem in reversed(problems)}.values())


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
