"""Regente: Hydra composes, Lightning plays, MLflow records, Regente conducts.

In a notebook: `from regente import train, sweep`. Neither imports torch before it is called.
"""

import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


def train(experiment: str = "digits_cnn", *overrides: str) -> dict[str, Any]:
    """Train as `regente train EXPERIMENT OVERRIDES` does, and return its result: metrics, checkpoint, job, run_id ...

    Raises:
        RegenteError: when it cannot start or did not end well.
    """
    from regente.api import train

    return train(experiment, overrides)


def sweep(experiment: str = "digits_cnn", *overrides: str, rerun: bool = False) -> list[dict[str, Any]]:
    """Run all combinations as `regente train -m` does; a dict for each job: overrides, state, value, metrics, job ...

    What is done already is not done again, unless `rerun`. Jobs that failed are in the list, with their reason.

    Raises:
        ConfigError: when a job cannot run; then none was started.
    """
    from regente.api import sweep

    return sweep(experiment, overrides, rerun=rerun)


class _Package(ModuleType):
    """Python would put the modules `regente.training.fit` and `regente.sweeps` in the places of the functions."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in ("train", "sweep") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
