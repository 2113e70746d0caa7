"""Several optimizer steps in one call of Lightning's loop, switched by `trainer.steps_per_call`.

What Lightning does around a `training_step` takes longer than the step of a small model. In a group the weights come
out the same to the bit, and `global_step` counts steps as always. What else knows of groups: the data module cuts batches
of `Supervised.batches_per_call` times its batch size, `TrainingLoss` and `Trace` read `losses` [n], the number of steps of
OneCycleLR is that of the loader, and the callers of `steps_of`.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint

from regente.data.core.in_memory import InMemory
from regente.data.core.seeding import STEP, seed_torch
from regente.jobs.hardware import world_size
from regente.tasks.supervised import Batch, Supervised
from regente.training.lightning_internals import optimizer_step_counter
from regente.training.ranks.consensus import of_rank_0

MOST = 16  # optimizer steps in a call
SECONDS = 0.1  # that a call may take on a CPU: so long a signal or the progress line waits
BYTES = 16e6  # of the inputs of a call, as float32
STEP_HOOKS = [  # of a callback that wants to see every step
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step"),
]
TASK_HOOKS = [  # that Lightning calls for each step, and a group does not; a task with its own takes single steps
    *(*STEP_HOOKS, "training_step", "backward", "on_before_batch_transfer", "optimizer_step"),
    *("optimizer_zero_grad", "lr_scheduler_step", "configure_gradient_clipping"),
    "configure_optimizers",  # whose one optimizer and one schedule a group steps
]
# values of the trainer's settings that need no step of its own
HARMLESS = {
    "accumulate_grad_batches": (1,), "gradient_clip_val": (0, 0.0), "max_steps": (-1,), "max_time": (),
    "limit_train_batches": (1.0,), "val_check_interval": (1.0,), "overfit_batches": (0, 0.0), "detect_anomaly": (False,),
    "fast_dev_run": (False,), "profiler": (), "on_nan": ("stop", "rollback"), "strategy": ("auto", "ddp"), "plugins": (),
    "precision": ("32", "32-true", 32, "64", "64-true", 64, "bf16", "bf16-mixed", "bf16-true"),  # no scaling of gradients
}  # fmt: skip


class GroupedSteps:
    """Takes an optimizer step for each of the `size` batches that come as one.

    Each step draws by (seed, epoch, batch), as StepSeeding has it for single steps.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __call__(self, task: LightningModule, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The last loss, and the losses [n] and learning rates of all steps."""
        trainer: Any = task.trainer
        # not Lightning's wrapper, whose step calls the hooks of every callback twice
        optimizer: Any = task.optimizers(use_pl_optimizer=False)
        counted = optimizer_step_counter(trainer)
        epoch, rank = trainer.current_epoch, trainer.global_rank
        scheduler, interval = _scheduler(trainer)
        losses, rates = [], []
        parts = zip(*(torch.split(part, trainer.datamodule.batch_size) for part in batch), strict=True)
        for number, (x, y) in enumerate(parts, batch_idx * self.size):
            seed_torch(task.device, self.seed, epoch, number, rank, STEP)
            loss = task.loss((x, y))  # type: ignore[operator]
            optimizer.zero_grad()
            trainer.strategy.pre_backward(loss)  # several ranks: gradients travel while backward runs
            # not manual_backward, which calls hooks and scales
            loss.backward()
            counted.increment_ready()
            optimizer.step()
            counted.increment_completed()
            torch.clear_autocast_cache()  # which holds the weights as they were before the step
            if interval == "step":
                scheduler.step()
            losses.append(loss.detach())
            rates.append(optimizer.param_groups[0]["lr"])
        if trainer.is_last_batch and interval == "epoch":
            scheduler.step()
            rates[-1] = optimizer.param_groups[0]["lr"]
        return {"loss": losses[-1], "losses": torch.stack(losses), "rates": rates}


def _scheduler(trainer: Any) -> tuple[Any, str]:
    """The scheduler and its interval, `step` or `epoch`; the interval is empty where there is none."""
    configs = trainer.lr_scheduler_configs
    return (configs[0].scheduler, configs[0].interval) if configs else (None, "")


def grouped_steps(
    config: dict[str, Any], data: Any, task: LightningModule, callbacks: Sequence[Callback]
) -> tuple[GroupedSteps | None, str]:
    """How many steps a call takes, if more than one; and a note where it is one though the user asked for more."""
    wanted = config["trainer"].get("steps_per_call", "auto")
    if wanted == 1:
        return None, ""
    if why := _obstacle(config, data, task, callbacks):
        note = f"trainer.steps_per_call={wanted}: one step per call, because of {why}"
        return None, "" if wanted == "auto" else note
    if wanted == "auto":
        wanted = int(of_rank_0("steps_per_call", str(_fitting(config, data, task))))
    return (GroupedSteps(wanted, config["seed"]) if wanted > 1 else None), ""


def steps_of(task: LightningModule) -> GroupedSteps | None:
    """What takes the steps of a task in groups; None where Lightning or the task itself takes them."""
    found = task.taken_steps if isinstance(task, Supervised) else None
    return found if isinstance(found, GroupedSteps) else None


def takes_groups(task: LightningModule) -> bool:
    """Whether the steps of the task can be taken in groups."""
    return (
        isinstance(task, Supervised)
        and task.automatic_optimization
        and all(getattr(type(task), hook) is getattr(Supervised, hook) for hook in TASK_HOOKS)
    )


def _obstacle(config: dict[str, Any], data: Any, task: LightningModule, callbacks: Sequence[Callback]) -> str:
    """What needs each step to be a call of its own."""
    trainer = config["trainer"]
    for key, values in HARMLESS.items():
        given = trainer.get(key)
        # a whole number of batches is no share: 1 is not 1.0
        if given is not None and not any(given == each and type(given) is type(each) for each in values):
            return f"trainer.{key}"
    if not isinstance(data, InMemory):
        return "data"
    if getattr(data, "augment", None) is not None and data.features is None:
        return "data.augment"
    scheduler = config["scheduler"]
    if str(scheduler.get("_target_")).endswith("ReduceLROnPlateau") or scheduler.get("frequency", 1) > 1:
        return "scheduler"
    if not takes_groups(task):
        return "task"
    for node in filter(None, config["callbacks"].values()):
        if node.get("every_n_train_steps") or node.get("train_time_interval"):
            return "a checkpoint every so many steps"
    ranks = world_size(trainer)
    return next((type(each).__name__ for each in callbacks if _sees_each_step(each, ranks)), "")


def _sees_each_step(callback: Callback, ranks: int) -> bool:
    # a checkpoint looks at each, and saves by steps only if asked to; our own know groups
    if type(callback) is ModelCheckpoint:
        return False
    if type(callback).__module__.startswith("regente.training.callbacks."):
        # Unfreeze averages gradients of ranks
        return ranks > 1 and type(callback).on_after_backward is not Callback.on_after_backward
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in STEP_HOOKS)


def _fitting(config: dict[str, Any], data: InMemory, task: LightningModule) -> int:
    """As many steps as fit into SECONDS and BYTES; on a CPU the time of a batch is measured."""
    data.prepare_data()
    data.setup("fit")
    x, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    most = min(MOST, int(BYTES // max(1, x.nbytes)))
    if config["trainer"]["accelerator"] == "cpu" and most > 1:
        task.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for _ in range(2):  # the first pays for what the second measures
                started = time.perf_counter()
                task(x)
            forward = time.perf_counter() - started
        task.train()
        most = min(most, int(SECONDS / (3 * forward)))  # backward and step take twice as long again
    return max(1, most)
