"""Regente: Hydra composes, Lightning trains, MLflow records, Regente conducts.

The public names; docs/api.md describes them. Nothing here imports torch before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regente.config.lazy_torchmetrics import import_torchmetrics_lazily
from regente.config.lightning_alias import serve_both_names

if TYPE_CHECKING:
    from regente.api import SweptJob, evaluate, load_model, predict, runs, sweep, train
    from regente.data.core.in_memory import InMemory
    from regente.errors import RegenteError
    from regente.jobs.runs import Run
    from regente.sweeps.protocols import Launcher, SearchSource, TrialResult, TrialSource, TrialSpec
    from regente.tasks.supervised import Supervised

__version__ = "0.1.0"
serve_both_names()  # before any module of a user is imported
import_torchmetrics_lazily()  # before Lightning is

_PLACES = {
    **dict.fromkeys(
        ("SweptJob", "evaluate", "load_model", "predict", "runs", "sweep", "train"), "regente.api"
    ),
    "InMemory": "regente.data.core.in_memory",
    "RegenteError": "regente.errors",
    "Run": "regente.jobs.runs",
    **dict.fromkeys(
        ("Launcher", "SearchSource", "TrialResult", "TrialSource", "TrialSpec"), "regente.sweeps.protocols"
    ),
    "Supervised": "regente.tasks.supervised",
}
__all__ = [
    "InMemory",
    "Launcher",
    "RegenteError",
    "Run",
    "SearchSource",
    "Supervised",
    "SweptJob",
    "TrialResult",
    "TrialSource",
    "TrialSpec",
    "evaluate",
    "load_model",
    "predict",
    "runs",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
