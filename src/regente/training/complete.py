"""The end of stage 1: facts that a config leaves open are read from folders and earlier runs."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from regente.config.compose import whole_counts
from regente.config.discovery import experiment_files
from regente.config.interpolation import references
from regente.config.overrides import key_of
from regente.config.root_keys import settle
from regente.config.signatures import TargetNotFound, read
from regente.config.task_parts import OPTIONAL, PARTS, given_to, has
from regente.data.core.class_folders import class_names, find_splits
from regente.errors import CheckpointError, ConfigError, Problem, TrackingError
from regente.jobs.runs import find, shown

NONE = {"_target_": None}  # a part that there is none of
TRANSFER = "regente.models.transfer.Transfer"


def complete(config: DictConfig, pins: dict[str, str] | None = None, overrides: Collection[str] = ()) -> None:
    """Write `data.num_classes`, if it is `???`, and the files that names of runs mean today.

    A part that the task does not take is left out of the config, as with `model=none`; an override of it is refused.

    The number of classes is counted in the folder of images or texts. `model.backbone=run:RUN` becomes a job directory,
    `init_from=RUN` a checkpoint. `pins` holds what each name means: configs that share it use the same files.

    Raises:
        ConfigError: when the config does not name the folder or file.
        DataError: when the folder or file is missing, or holds no classes.
        TrackingError: when a name means no run, or several.
        CheckpointError: when the initial weights are missing.
    """
    emptied = {"callbacks": {}, "loggers": {}, "metrics": {}, **dict.fromkeys((*PARTS, "loss"), NONE)}
    # here and below: a broken reference, which `resolve` reports
    with suppress(OmegaConfBaseException):
        whole_counts(config)
        settle(config)
        for part, nothing in emptied.items():
            if part in config and not OmegaConf.is_missing(config, part) and config.get(part) is None:
                config[part] = nothing
    with suppress(OmegaConfBaseException):
        _leave_out(config, overrides)
    with suppress(OmegaConfBaseException):
        _count_classes(config)
    with suppress(OmegaConfBaseException):
        _give_classes(config)
    with suppress(OmegaConfBaseException):
        _pin_backbone(config, {} if pins is None else pins)
        _pin_initial_weights(config, {} if pins is None else pins)


def _leave_out(config: DictConfig, overrides: Collection[str]) -> None:
    """Empty the groups that nobody reads, so that they need fit nothing and are not recorded."""
    task: Any = OmegaConf.to_container(config.task)
    given, problems = given_to(task), []
    for part in OPTIONAL:
        if has(config, part) and part not in given_to(task, config) and not _is_read(config, part):
            what = f"{task['_target_']} takes no {part}, or has its own; leave it out"
            problems.append(Problem(part, what))
    for part in PARTS:
        if part in given or _is_read(config, part):
            continue
        for override in overrides:
            if key_of(override).partition(".")[0] == part and override.partition("=")[2] != "none":
                what = f"{task['_target_']} takes no {part}, or has its own; leave it out"
                problems.append(Problem(override, what))
        config[part] = NONE
    if problems:
        raise ConfigError(problems)


def _is_read(config: DictConfig, part: str) -> bool:
    """Whether a reference elsewhere in the config leads into the part."""
    others = OmegaConf.create({key: value for key, value in config.items_ex(resolve=False) if key != part})
    return part in references(OmegaConf.to_yaml(others))


def _pin_initial_weights(config: DictConfig, pins: dict[str, str]) -> None:
    name = config.get("init_from")
    if not name:
        return
    path = Path(str(name)).expanduser()
    if not path.suffix and not path.is_file():
        if name not in pins:
            pins[name] = shown(find(str(name), Path.cwd()).checkpoint)
        path = Path(pins[name])
    if not path.is_file():
        raise CheckpointError(f"init_from={name}: no such file; name one that is there, or a run")
    config.init_from = shown(path)


def _pin_backbone(config: DictConfig, pins: dict[str, str]) -> None:
    model = config.get("model")
    if not isinstance(model, DictConfig) or model.get("_target_") != TRANSFER:
        return
    name = model.get("backbone")
    if isinstance(name, str) and name.startswith("run:"):
        run = name.removeprefix("run:")
        try:
            if name not in pins:
                pins[name] = f"run:{shown(find(run, Path.cwd()).job.path)}"
            model.backbone = pins[name]
        except TrackingError as error:
            if (experiment := run.partition(":")[0]) not in experiment_files():
                raise
            what = f"model.backbone={name}: no finished run here; make one: regente train {experiment}"
            raise TrackingError(what) from error


def _count_classes(config: DictConfig) -> None:
    data = config.get("data")
    if not isinstance(data, DictConfig) or not OmegaConf.is_missing(data, "num_classes"):
        return
    for target, (setting, what, count) in COUNTED.items():
        if not _is_a(data, target):
            continue
        if OmegaConf.is_missing(data, setting) or data.get(setting) is None:
            place = "FOLDER" if setting == "root" else "..."
            raise ConfigError(
                [Problem(f"data.{setting}", f"has no value; name {what}: data.{setting}={place}")]
            )
        data.num_classes = count(data, Path(str(data[setting])).expanduser())


def _give_classes(config: DictConfig) -> None:
    """Give the metrics of several classes their number, which is the data's."""
    for node in (config.get("metrics") or {}).values() if "num_classes" in config.data else ():
        if not isinstance(node, DictConfig) or "num_classes" in node:
            continue
        with suppress(TargetNotFound, SyntaxError):
            signature = read(str(node.get("_target_")))
            # torchmetrics.F1Score and others make one of several classes, by `task`
            if "num_classes" in signature.parameters or node.get("task") == "multiclass":
                node.num_classes = "${data.num_classes}"


def _is_a(data: DictConfig, target: str) -> bool:
    try:
        own = str(data.get("_target_"))
        return own == target or read(own).derives_from(target) is True
    except (OmegaConfBaseException, TargetNotFound, SyntaxError):
        return False  # `check` reports it


def _folders(data: DictConfig, root: Path) -> int:
    return len(class_names(find_splits(root)["train"]))


def _labels(data: DictConfig, path: Path) -> int:
    if data.get("class_names"):
        return len(data.class_names)
    from regente.data.core.labelled_texts import (  # imports numpy, a fifth of a command's time
        Columns,
        read_texts,
    )

    columns = Columns(str(data.text_column), str(data.label_column), data.get("split_column"))
    return len(read_texts(path, columns).classes)


# by class of the data module: the setting that holds the path, what the path is, how to count the classes
COUNTED = {
    "regente.data.image_folder.ImageFolder": ("root", "the folder of images", _folders),
    "regente.data.text_classification.TextClassification": ("path", "a file or folder of texts", _labels),
}
