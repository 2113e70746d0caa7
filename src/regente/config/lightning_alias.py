"""`import lightning` and `import pytorch_lightning` are the same code under two names: both mean the one that trains here.

Without this a task of `lightning.pytorch` would be no LightningModule for a Trainer of `pytorch_lightning`.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ALIASES = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}
ROOT = "lightning"


def canonical(path: str) -> str:
    """The dotted path under the name that is used here: `lightning.pytorch.Trainer` is `pytorch_lightning.Trainer`."""
    for alias, name in (*ALIASES.items(), (ROOT, ALIASES["lightning.pytorch"])):
        if path == alias or path.startswith(f"{alias}."):
            return name + path[len(alias) :]
    return path


def serve_both_names() -> None:
    """From here on an import of `lightning` gives the modules of `pytorch_lightning` and `lightning_fabric`."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self.specs: dict[str, ModuleSpec | None] = {}  # of the modules that are there under their own name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == ROOT or (canonical(fullname) != fullname and fullname.startswith(tuple(ALIASES))):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if spec.name == ROOT:
            return None  # a new, empty one
        module = importlib.import_module(canonical(spec.name))
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == ROOT:
            module.__getattr__ = _of_root  # type: ignore[method-assign]
        else:  # the import has replaced it
            module.__spec__ = self.specs.pop(getattr(module.__spec__, "name", ""), module.__spec__)


def _of_root(name: str) -> Any:
    """What `lightning` itself has: the names of both packages, and the two as modules."""
    if f"{ROOT}.{name}" in ALIASES:
        return importlib.import_module(f"{ROOT}.{name}")
    for package in ALIASES.values():
        if hasattr(module := importlib.import_module(package), name):
            return getattr(module, name)
    raise AttributeError(f"module {ROOT!r} has no attribute {name!r}")
