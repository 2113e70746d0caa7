"""Which names a recorded config may hold: classes under trusted packages, and components of the user's own project."""

import importlib
import re
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regente.config.lightning_alias import canonical
from regente.config.limits import is_below
from regente.config.pyproject import listed

PACKAGES = (  # a class below one of these is trusted, if it is of one of the KINDS
    *("regente.data", "regente.models", "regente.tasks", "regente.training.callbacks"),
    *("torch.nn", "torch.optim", "torchvision.models", "torchvision.ops", "torchvision.transforms"),
    "torchmetrics",
    *("pytorch_lightning.callbacks", "pytorch_lightning.Trainer", "pytorch_lightning.trainer.trainer.Trainer"),
    *("pytorch_lightning.loggers.CSVLogger", "pytorch_lightning.loggers.csv_logs"),  # others may send results away
    *("pytorch_lightning.loggers.TensorBoardLogger", "pytorch_lightning.loggers.tensorboard"),
)  # fmt: skip
DENIED = (  # also where the project trusts all of torch: they load, compile or run their arguments
    *("torch.hub", "torch.jit", "torch.package", "torch.distributed", "torch.multiprocessing", "torch.serialization"),
    *("torch.utils", "torch.fx", "torch.onnx", "torch.export", "torch.ops", "torch.classes", "torch.library"),
    *("torch._C", "torch._dynamo", "torch._inductor", "torch.testing", "torch.nn.parallel"),
    *("torchmetrics.text", "torchmetrics.multimodal", "torchmetrics.image", "torchmetrics.audio", "torchmetrics.video"),
    *("pytorch_lightning.callbacks.LambdaCallback", "pytorch_lightning.callbacks.lambda_function"),
)  # fmt: skip
KINDS = (
    *("torch.nn.Module", "torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler", "torch.utils.data.Dataset"),
    *("pytorch_lightning.LightningDataModule", "pytorch_lightning.Callback", "pytorch_lightning.Trainer"),
    "pytorch_lightning.loggers.Logger",
)  # fmt: skip
PLAIN = ("regente.data.augmentation", "regente.models.feature_bank")  # whose classes are of no such kind
NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)  # nothing private, nothing with dunders
OUTPUTS = ("runs", "multirun", "mlartifacts", "mlruns")  # folders of a project that hold no code
INSTALLED = ("site-packages", "dist-packages")
LIBRARIES = [Path(folder).resolve() for kind, folder in sysconfig.get_paths().items() if kind != "data"]


def is_installed(file: Path) -> bool:
    """Whether a resolved file is Python's or a package's; an environment may see packages outside of its own folders."""
    return bool({*INSTALLED} & {*file.parts}) or any(file.is_relative_to(folder) for folder in LIBRARIES)


def refusal_by_name(target: str, project: Path, listed: tuple[str, ...]) -> str:
    """Why a name is refused; "" if it is trusted. Nothing is imported."""
    target = canonical(target)
    refused = f"refused: {target[:100]} "
    if not NAME.fullmatch(target):
        return refused + "is not the name of a class"
    first = target.partition(".")[0]
    if first in sys.stdlib_module_names or _below(target, DENIED):
        return refused + "is not a component"
    if _below(target, (*PACKAGES, *listed)) or is_own(target, project):
        return ""
    return refused + f"is not of a trusted package; start in the folder of its project, or {remedy(first)}"


def remedy(name: str) -> str:
    return f'write in pyproject.toml [tool.regente] trusted = ["{name}"]'


def _below(target: str, packages: Iterable[str]) -> bool:
    return any(is_below(target, package) for package in packages)


def refusal_by_import(target: str, project: Path, listed: tuple[str, ...]) -> str:
    """Why the object of a name is refused once it is imported; "" if it is trusted."""
    target = canonical(target)
    module, _, name = target.rpartition(".")
    refused = f"refused: {target[:100]} "
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        return refused + f"is not there ({error})"
    if target in listed:
        return ""
    if not isinstance(found, type):
        builds = _builds_a_model(target, found)
        return "" if builds else refused + f"is no class; {remedy(target)} if it may be called"
    real = f"{found.__module__}.{found.__qualname__}"
    if real != target and (why := refusal_by_name(real, project, listed)):
        return f"{why} ({target})"
    if _below(real, PLAIN) or any(issubclass(found, _kind(name)) for name in KINDS):
        return ""
    return refused + f"is no component; {remedy(target)} if it may be made"


def _kind(name: str) -> type:
    place, _, name = name.rpartition(".")
    kind: type = getattr(importlib.import_module(place), name)
    return kind


def _builds_a_model(target: str, found: Any) -> bool:
    """Whether it is one of the functions that torchvision lists as its models."""
    if not target.startswith("torchvision.models."):
        return False
    from torchvision import models

    name = target.rpartition(".")[2]
    return name in models.list_models() and models.get_model_builder(name) is found


def is_own(target: str, project: Path) -> bool:
    """Whether a dotted name is in a module of the project, which an import would find there.

    Packages installed in a folder of the project are not its own. Nor is what lies in or around a job directory: that
    may be a download.
    """
    names, project = target.split("."), project.resolve()
    if any(package.startswith(f"{names[0]}.") for package in PACKAGES):
        return False
    try:
        spec = find_spec(names[0])
    except (ImportError, ValueError):
        return False
    file = _source(spec)
    if file is None or not file.is_relative_to(project):
        return False
    for name in names[1:-1]:
        assert spec is not None
        spec = PathFinder.find_spec(name, spec.submodule_search_locations or [])
        inner = _source(spec)
        if inner is None or not inner.is_relative_to(file.parent):
            return False
    home = file.parent if file.name == "__init__.py" else None
    folders = [folder for folder in file.parents if folder.is_relative_to(project)]
    inward = file.relative_to(project).parts
    return not (
        set(inward) & {*OUTPUTS, *INSTALLED}
        or any((folder / "job.json").exists() for folder in folders)
        or (home and any(home.rglob("job.json")))
    )


def _source(spec: ModuleSpec | None) -> Path | None:
    """The file of a module or of a package; a namespace package has none."""
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def listed_by(project: Path) -> tuple[str, ...]:
    """The names that the project trusts; a job directory has no say."""
    return listed("trusted", project)
