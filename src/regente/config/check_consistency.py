"""What two parts of a config must agree on."""

from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from regente.config.check_part import shorten
from regente.config.limits import is_number
from regente.config.signatures import TargetNotFound, read
from regente.config.task_parts import is_supervised
from regente.errors import Problem

# The metrics that can be watched while a task trains
LOGGED = {
    "regente.tasks.classifier.Classifier": ("train/loss", "val/loss", "val/acc"),
    "regente.tasks.regressor.Regressor": ("train/loss", "val/loss", "val/mae"),
    "regente.tasks.language_model.LanguageModel": ("train/loss", "val/loss", "val/acc", "val/perplexity"),
}
# Packages of metrics that have one value
PLAIN_METRICS = ("torchmetrics.classification.", "torchmetrics.regression.")
# What each finder of the trainer finds: part and setting
FINDERS = {"find_lr": ("optimizer", "lr"), "find_batch_size": ("data", "batch_size")}


def consistency_problems(config: dict[str, Any]) -> Iterator[Problem]:
    """The problems between parts, each of which is right by itself."""
    yield from _data_and_model(config["data"], config["model"])
    yield from _trainer(config)
    yield from _metrics(config)
    if config["task"]["_target_"] in LOGGED and (config.get("loss") or {}).get("reduction") == "sum":
        what = "a sum grows with the batch, so val/loss would be no mean over the samples; use mean"
        yield Problem("loss.reduction=sum", what)
    for key in [key for key in ("interval", "frequency") if key in config["scheduler"]]:
        if not is_supervised(config["task"]):
            what = f"{config['task']['_target_']} says itself when its schedule steps; leave it out"
            yield Problem(f"scheduler.{key}", what)
    yield from _groups(config)


def _groups(config: dict[str, Any]) -> Iterator[Problem]:
    """Parameter groups whose learning rates a finder would leave behind."""
    groups = config["optimizer"].get("groups") or {}
    fixed = [name for name, group in groups.items() if "lr" in group]
    if fixed and config["trainer"].get("find_lr"):
        what = "stays as it is while trainer.find_lr finds optimizer.lr; give lr_factor"
        yield Problem(f"optimizer.groups.{fixed[0]}.lr", what)


def _data_and_model(data: dict[str, Any], model: dict[str, Any]) -> Iterator[Problem]:
    own = not str(model["_target_"]).startswith("regente.")
    for key in ("num_classes", "input_shape", "vocab_size", "every_position"):
        # a model of the user's may have a class for the background, and read its input in its own way
        fits = own and (
            key != "num_classes" or not is_number(model.get(key)) or model[key] >= (data.get(key) or 0)
        )
        if key in data and key in model and data[key] != model[key] and not fits:
            what = f"the data has {data[key]}; leave it at ${{data.{key}}}"
            yield Problem(f"model.{key}={shorten(model[key])}", what)
    names, number = data.get("class_names"), data.get("num_classes")
    if isinstance(names, list) and number is not None and len(names) != number:
        what = f"data.class_names has {len(names)} names; one for each class"
        yield Problem(f"data.num_classes={shorten(number)}", what)
    ours = data["_target_"].startswith("regente.") and str(model["_target_"]).startswith("regente.")
    if ours and "vocab_size" in data and "vocab_size" not in model:
        what = "does not take numbers of words, which the data gives; use model=lstm"
        yield Problem(f"model._target_={model['_target_']}", what)


def _trainer(config: dict[str, Any]) -> Iterator[Problem]:
    trainer = config["trainer"]
    for key, (part, setting) in FINDERS.items():
        if trainer.get(key) and setting not in config[part]:
            what = f"finds {part}.{setting}, which is no setting here; add it, or leave this out"
            yield Problem(f"trainer.{key}", what)
        if trainer.get(key) and type(trainer.get("devices")) is int and trainer["devices"] > 1:
            what = "takes one device; find it with trainer.devices=1, and give it to the run of several"
            yield Problem(f"trainer.{key}", what)
    if trainer.get("max_time") is not None and trainer.get("max_minutes") is not None:
        yield Problem("trainer.max_time", "goes without trainer.max_minutes; give one of them")


def _is_own(callback: dict[str, Any] | None) -> bool:
    target = str((callback or {}).get("_target_") or "regente.")
    return not target.startswith(("regente.", "pytorch_lightning.", "lightning."))


def _is_plain(target: str) -> bool:
    with suppress(TargetNotFound, SyntaxError):
        return str(read(target).name).startswith(PLAIN_METRICS)
    return False


def _metrics(config: dict[str, Any]) -> Iterator[Problem]:
    """Metrics that the task never logs, each once: a callback mostly refers to the monitor."""
    logged = LOGGED.get(config["task"]["_target_"])
    metrics = {
        name: str(node["_target_"])
        for name, node in (config.get("metrics") or {}).items()
        if isinstance(node, dict) and node.get("_target_")  # `--cfg job -p PART` checks no others
    }
    if logged is None:
        return
    for name in metrics:
        if f"val/{name}" in logged:
            yield Problem(f"metrics.{name}", "the task logs this name itself; give it another")
    if any(map(_is_own, config["callbacks"].values())):  # which may log more
        return
    if not all(map(_is_plain, metrics.values())):
        return  # a wrapper, or a metric of the user's, may have several values with names of their own
    logged = (*logged, *(f"val/{name}" for name in metrics))
    watched = {
        f"callbacks.{name}.monitor": node.get("monitor") for name, node in config["callbacks"].items() if node
    }
    watched["monitor.metric"] = config["monitor"]["metric"]
    named = {metric: where for where, metric in watched.items() if isinstance(metric, str)}
    for metric, where in named.items():
        if metric not in logged:
            close = get_close_matches(metric, logged, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            yield Problem(f"{where}={metric}", f"never logged; {hint}logged: {', '.join(logged)}")
