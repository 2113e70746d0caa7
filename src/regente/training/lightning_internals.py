"""Every use of Lightning's private or undocumented parts (2.6), each with its reason.

`tests/training/test_lightning_internals.py` fails when a release changes one of them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


def is_accumulating(trainer: Trainer) -> bool:
    """Whether gradients of the last batch wait for those of the next ones.

    Callbacks in a validation need it: Lightning counts there in batches of the validation.
    """
    return bool(trainer.fit_loop.epoch_loop._should_accumulate())


def training_loaders(trainer: Trainer) -> Sequence[Any]:
    """The loaders of the training, as Lightning iterates over them; `trainer.train_dataloader` has the user's structure."""
    loader = trainer.fit_loop._combined_loader
    assert loader is not None
    return loader.flattened


def replace_training_loaders(trainer: Trainer, loaders: list[Any]) -> None:
    """Let Lightning iterate over other loaders. It takes loaders only from the data module, before callbacks can wrap them."""
    loader = trainer.fit_loop._combined_loader
    assert loader is not None
    loader.flattened = loaders


def restart_training_iterator(trainer: Trainer) -> None:
    """Iterate over the training loaders anew: Lightning makes its iterator before `on_train_start`."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    iter(fetcher)


def reload_loaders_each_epoch(trainer: Trainer) -> None:
    """Ask the data module for new loaders before each epoch, as the argument of Trainer does from its start."""
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]


def disable_sigterm_broadcast(trainer: Trainer) -> None:
    """Leave out the broadcast before each batch by which rank 0 says whether it got a SIGTERM (Lightning's issue 21487).

    StopOnSignal stops the ranks together without it.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    loop._broadcast_sigterm_tensor = lambda: None


def overwrite_checkpoints(callbacks: Iterable[Callback]) -> None:
    """Let a resumed run replace the files that it saves again, where Lightning would add `-v1` to the name.

    `enable_version_counter` is an argument of ModelCheckpoint, but a first attempt needs it.
    """
    for each in callbacks:
        if isinstance(each, ModelCheckpoint):
            each._enable_version_counter = False


def restore_callback_metrics(trainer: Trainer, metrics: dict[str, Any]) -> None:
    """Give a resumed run the metrics of its last validation: checkpoints and schedulers of Lightning read them.

    `callback_metrics` is public, but that it returns the dict itself and no copy is not documented.
    """
    trainer.callback_metrics.update(metrics)


def restore_loops(trainer: Trainer, *, validation_due: bool) -> None:
    """Put the loops where they were at the start of a batch, or before the validation that comes next.

    Lightning's own restart leaves out the validation after a last batch, the step of the scheduler at the end of the
    epoch in which it restarts, and the position in the loader. Loaders with a `begin` start at that batch.
    """
    fit: Any = trainer.fit_loop
    epoch: Any = fit.epoch_loop
    batches, validation = epoch.batch_progress, epoch.val_loop
    done = batches.current.completed
    batches.is_last_batch &= validation_due  # at the start of a batch it is about that batch
    batches.current.reset_on_restart()
    batches.total.reset_on_restart()
    fit._restarting = False  # else the step of ReduceLROnPlateau at the end of this epoch is left out
    epoch._restart_stage = "none"
    if not epoch._should_accumulate():
        epoch._batches_that_stepped -= 1  # the loop adds one when it restarts
    validation.restarting = False
    validation._restart_stage = "restarted_mid_evaluation" if validation_due else "none"
    for loader in training_loaders(trainer):
        if hasattr(loader, "begin"):
            loader.begin = (
                0 if batches.is_last_batch else done
            )  # 0: the next epoch is the next one to iterate
    restart_training_iterator(trainer)


def optimizer_step_counter(trainer: Trainer) -> Any:
    """The counter behind `trainer.global_step` in manual optimization: `increment_ready()`, `increment_completed()`.

    Lightning counts only the steps of its wrapper of the optimizer, which calls the hooks of every callback twice.
    """
    return trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress


def logged_in_training(trainer: Trainer, name: str) -> bool:
    """Whether the task logs a metric of this name in its training steps, by `self.log`.

    Reason: `trainer.logged_metrics` has a metric that is averaged over the epoch only at its end.
    """
    results = trainer.fit_loop.epoch_loop._results.values()  # in a validation too, where others are current
    return any(each.meta.name == name and each.meta.fx == "training_step" for each in results)
