"""The private part of Lightning (2.6) that a task needs; `training/lightning_internals.py` holds all others.

`tests/training/test_lightning_internals.py` fails when a release changes it.
"""

from typing import Any

from pytorch_lightning import Trainer


def optimizer_step_counter(trainer: Trainer) -> Any:
    """The counter behind `trainer.global_step` in manual optimization: `increment_ready()`, `increment_completed()`.

    Lightning counts only the steps of its wrapper of the optimizer, which calls the hooks of every callback twice.
    """
    return trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
