"""Between steps 1 and 2 of a run: what a config leaves open and the names of folders tell."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from regente.data.class_folders import class_names, find_splits
from regente.errors import ConfigError, Problem
from regente.runs import find, shown
from regente.signatures import TargetNotFound, read

TRANSFER = "regente.models.transfer.Transfer"
IMAGE_FOLDER = "regente.data.image_folder.ImageFolder"


def fill(config: DictConfig) -> None:
    """Write the number of class directories into `data.num_classes`, where an image folder leaves it open (`???`),
    and the job directory of the run that `model.backbone=run:RUN` means today.

    Raises:
        ConfigError: when it is not said which folder.
        DataError: when the folder is not there, or not one of classes.
        TrackingError: when no run is meant, or several are.
    """
    _fill_classes(config)
    _pin_backbone(config)


def _pin_backbone(config: DictConfig) -> None:
    model = config.get("model")
    if not isinstance(model, DictConfig) or model.get("_target_") != TRANSFER:
        return
    name = model.get("backbone")
    if isinstance(name, str) and name.startswith("run:"):
        model.backbone = f"run:{shown(find(name.removeprefix('run:'), Path.cwd()).job.path)}"


def _fill_classes(config: DictConfig) -> None:
    data = config.get("data")
    if not isinstance(data, DictConfig) or not OmegaConf.is_missing(data, "num_classes"):
        return
    try:
        target, root = (
            str(data.get("_target_")),
            None if OmegaConf.is_missing(data, "root") else data.get("root"),
        )
        if target != IMAGE_FOLDER and not read(target).derives_from(IMAGE_FOLDER):
            return
    except (OmegaConfBaseException, TargetNotFound, SyntaxError):
        return  # which `check` says better
    if root is None:
        raise ConfigError([Problem("data.root", "has no value; name the folder of images: data.root=FOLDER")])
    data.num_classes = len(class_names(find_splits(Path(str(root)).expanduser())["train"]))
