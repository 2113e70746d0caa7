"""torchmetrics without what nobody has asked for: its `__init__` imports scipy.signal, torchvision and transformers.

Lightning imports torchmetrics for two classes, `Metric` and `MetricCollection`. The rest of it takes 5 of the 9 CPU
seconds of Lightning's import. Here the package is there at once, and its `__init__` runs when a name is asked for that is
not there yet. Nobody sees a difference but in time.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PLACES = {
    "torchmetrics": {"Metric": "torchmetrics.metric", "MetricCollection": "torchmetrics.collections"},
    "torchmetrics.functional": {},
}
NOT_THERE = ("__wrapped__", "__test__", "__signature__")  # what inspection asks of any module


class LazyPackage(ModuleType):
    """A package whose `__init__` has not run."""

    def __getattr__(self, name: str) -> Any:
        if place := PLACES[self.__name__].get(name):
            return getattr(import_module(place), name)
        if name in NOT_THERE:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if PathFinder.find_spec(whole := f"{self.__name__}.{name}", self.__path__):
            return import_module(whole)
        self._run()
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        self._run()
        return dir(self)

    def _run(self) -> None:
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)


class LazyLoader(Loader):
    """Makes the package, and gives the rest to the loader of its file."""

    def __init__(self, of_file: Loader) -> None:
        self.of_file = of_file

    def create_module(self, spec: ModuleSpec) -> None:
        """A plain module: the import system asks a new one for names that it does not have yet."""

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.of_file
        module.__class__ = LazyPackage
        if module.__name__ == "torchmetrics":
            self._begin(module)

    @staticmethod
    def _begin(module: ModuleType) -> None:
        """Do what the `__init__` of torchmetrics does first, on which its modules count."""
        import numpy as np

        np.Inf = np.inf  # type: ignore[attr-defined]  # also for programs that were written for older versions
        about = import_module("torchmetrics.__about__")
        values = {name: getattr(about, name) for name in about.__all__}
        vars(module).update(values, _logger=logging.getLogger("torchmetrics"))
        import_module("torchmetrics.utilities")


class LazyFinder(MetaPathFinder):
    """Finds the packages of PLACES."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in PLACES or not (spec := PathFinder.find_spec(name, path, target)) or not spec.loader:
            return None
        spec.loader = LazyLoader(spec.loader)
        return spec


def import_torchmetrics_lazily() -> None:
    """Install the finder, once."""
    if not any(isinstance(each, LazyFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, LazyFinder())
