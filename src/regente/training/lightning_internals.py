"""Every use of Lightning's private or undocumented parts (2.6), each with its reason.

`tests/training/test_lightning_internals.py` fails when a release changes one of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import Callback, LightningModule, Trainer
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
    if done:  # else the first batch that comes resets what is averaged over the epoch
        trainer._logger_connector._first_loop_iter = False
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


def means_of_one_rank(trainer: Trainer) -> list[str]:
    """What the running evaluation logs in its steps as means over a rank's own samples.

    Lightning warns about it, with a note that Regente does not show as it comes for each name and rank.
    """
    results: Any = trainer._results
    found = [each.meta for each in (results or {}).values() if each.is_tensor and each.meta.on_epoch]
    steps = ("validation_step", "test_step")
    return [
        meta.name
        for meta in found
        if meta.fx.split(".")[0] in steps and not meta.sync.should and not meta.sync.rank_zero_only
    ]


# of what a task logs by `self.log`: the arguments of the call, and the value so far
LOGGED_AS = (
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "enable_graph",
    "add_dataloader_idx",
    "metric_attribute",
)
LOGGED = ("value", "cumulated_batch_size", "_forward_cache", "_update_count", "_computed")


def result_states(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """What the training has logged in this epoch, as plain types.

    Lightning averages it by `self.log(on_epoch=True)`, and saves nothing of it in a checkpoint.
    """
    found = {}
    for key, each in trainer.fit_loop.epoch_loop._results.items():
        meta, sync = each.meta, each.meta.sync
        if not each.has_reset and sync.group is None:  # a process group cannot be saved
            found[key] = {
                "fx": meta.fx, "name": meta.name, "reduce_fx": meta.reduce_fx.__name__,
                "sync_dist": sync.should, "rank_zero_only": sync.rank_zero_only,
                **{name: getattr(meta, name) for name in LOGGED_AS},
                "state": {name: vars(each)[name] for name in LOGGED if name in vars(each) and each.is_tensor},
            }  # fmt: skip
    return found


def restore_results(trainer: Trainer, task: LightningModule, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Put back what was logged in this epoch; the metrics of torchmetrics among it have their states again already."""
    results, metrics = trainer.fit_loop.epoch_loop._results, dict(task.named_modules())
    device = trainer.strategy.root_device
    for key, saved in states.items():
        value: Any = (
            torch.zeros((), device=device) if saved["state"] else metrics.get(saved["metric_attribute"])
        )
        if value is not None:
            call = {name: each for name, each in saved.items() if name != "state"}
            results.log(value=value, sync_dist_fn=trainer.strategy.reduce, batch_size=1, **call)
            vars(results[key]).update(move_data_to_device(dict(saved["state"]), device))


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
