"""Step 4 of a run: the frozen config becomes data, task and trainer, in one visible order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning_fabric.plugins import CheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.nn.parameter import is_lazy

from regente.config.own_settings import without_own_settings
from regente.errors import ConfigError, Problem, RegenteError
from regente.jobs.job import Job
from regente.models.features.cached_features import cache_features
from regente.models.transfer import deferred
from regente.tasks.supervised import Supervised
from regente.training.callbacks.resume_states import ResumeStates
from regente.training.callbacks.step_seeding import StepSeeding
from regente.training.callbacks.stop_on_signal import StopOnSignal
from regente.training.checkpoints.initialization import Point
from regente.training.checkpoints.saving import SafeSaving
from regente.training.performance import channels_last, compiled, fused, steps_per_call
from regente.training.ranks.strategies import strategy

FIRST = (StepSeeding, ResumeStates, StopOnSignal)  # of the callbacks


@dataclass(frozen=True)
class Parts:
    """What `fit` needs."""

    data: LightningDataModule
    task: LightningModule
    trainer: Trainer
    notes: list[str]  # what is done otherwise than asked

    @property
    def checkpoint(self) -> ModelCheckpoint | None:
        """The callback that knows the best weights, if there is one."""
        found = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
        return found[0] if found else None


def build(
    config: dict[str, Any],
    job: Job,
    own_callbacks: list[Callback],
    logger: Logger | None,
    saving: SafeSaving | None = None,
    point: Point | None = None,
    attempt: int = 0,
    fitted_state: Mapping[str, Any] | None = None,
) -> Parts:
    """Seed, then data, model, optimizer, scheduler, task, callbacks and trainer.

    `point`: the state that the run goes on from; `attempt`: how many it has had before; `fitted_state`: what the data is to
    recall of a run instead of learning it anew.

    Raises:
        ConfigError: when a part refuses its arguments.
    """
    seed_everything(config["seed"], workers=True, verbose=False)
    data = _make("data", config["data"])
    if fitted_state is not None:
        data.load_fitted_state(fitted_state)
    with deferred():
        model = _make("model", without_own_settings("model", config["model"]))
    materialise(model, data)
    model = channels_last(model)
    if config["model"].get("compile"):
        compiled(model)
    task = _make(
        "task",
        config["task"],
        model=model,
        optimizer=_make("optimizer", fused(config["optimizer"], config["trainer"])),
        scheduler=_make("scheduler", config["scheduler"]) if config["scheduler"].get("_target_") else None,
        monitor=config["monitor"]["metric"],
    )
    callbacks = [_callback(name, node, job) for name, node in config["callbacks"].items() if node]
    for each in callbacks:
        if isinstance(each, ResumeStates):
            each.attempt = attempt
    every = [StepSeeding(config["seed"]), *callbacks, *own_callbacks]
    # first: a state is taken before others do what they do at the start of a batch
    every.sort(
        key=lambda each: next((n for n, kind in enumerate(FIRST) if isinstance(each, kind)), len(FIRST))
    )
    trainer = make_trainer(config, job, every, logger, saving)
    notes = cache_features(model, data, config, trainer.strategy.root_device)
    steps, note = steps_per_call(config, data, task, every, point.group if point else None)
    if steps > 1 or (point is not None and point.grouped and isinstance(task, Supervised)):
        data.group = steps
        task.group(data.batch_size, steps, config["seed"])
    return Parts(data, task, trainer, [*notes, *([note] if note else []), *_by_heart(trainer)])


def make_trainer(
    config: dict[str, Any],
    job: Job,
    every: list[Callback],
    logger: Logger | None,
    saving: SafeSaving | None = None,
) -> Trainer:
    """Lightning's trainer as the config wants it, quiet, and with nothing of its own outside the job directory."""
    made: Trainer = _make(
        "trainer",
        _lightnings(config["trainer"]),
        callbacks=every,
        logger=logger or False,
        **strategy(config["trainer"]),
        plugins=_with_saving(config["trainer"].get("plugins"), saving),
        default_root_dir=str(job.path),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in every),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return made


def _by_heart(trainer: Any) -> list[str]:
    if not trainer.overfit_batches:
        return []
    return [f"trainer.overfit_batches={trainer.overfit_batches}: val and test are the same batches as train"]


def _lightnings(trainer: dict[str, Any]) -> dict[str, Any]:
    """The trainer's node as Lightning takes it."""
    node = without_own_settings("trainer", trainer)
    if (minutes := trainer.get("max_minutes")) is not None:
        node["max_time"] = {"minutes": minutes}
    if trainer.get("overfit_batches") and trainer.get("max_steps", -1) > 0:
        node["max_epochs"] = -1
    return node


def materialise(model: nn.Module, data: LightningDataModule) -> None:
    """Give lazy layers (nn.LazyLinear ...) their shapes, with a batch of the training data."""
    if not any(is_lazy(parameter) for parameter in model.parameters()):
        return
    data.prepare_data()
    data.setup("fit")
    x = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)[0]
    with torch.no_grad():
        model(x)


def _make(where: str, node: dict[str, Any], **given: Any) -> Any:
    """Instantiate a node; the finished objects in `given` are handed over as they are."""
    try:
        if given:
            return instantiate({**node, "_partial_": True}, _convert_="all")(**given)
        return instantiate(node, _convert_="all")
    except (InstantiationException, MisconfigurationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, RegenteError):
            raise cause from None
        if isinstance(cause, MisconfigurationException) or (
            isinstance(cause, ValueError | TypeError) and _is_refusal(cause)
        ):
            raise ConfigError([Problem(where, str(cause))]) from error
        raise cause or error from None


def _is_refusal(error: BaseException) -> bool:
    """Whether a constructor raised by itself, as against a call deep inside of it that went wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_name == "__init__"


def _with_saving(plugins: Any, saving: SafeSaving | None) -> list[Any]:
    """The user's plugins, and ours for checkpoints unless one of them is such."""
    given = plugins if isinstance(plugins, list) else [plugins] if plugins else []
    return (
        given if saving is None or any(isinstance(each, CheckpointIO) for each in given) else [*given, saving]
    )


def _callback(name: str, node: dict[str, Any], job: Job) -> Callback:
    if str(node["_target_"]).endswith("ModelCheckpoint") and not node.get("dirpath"):
        node = {**node, "dirpath": str(job.checkpoints)}
    if str(node["_target_"]).endswith("ResumeStates") and not node.get("folder"):
        node = {**node, "folder": str(job.resume_states)}
    callback = _make(f"callbacks.{name}", node)
    if not isinstance(callback, Callback):
        raise ConfigError(
            [Problem(f"callbacks.{name}", f"{type(callback).__name__} is not a Lightning callback")]
        )
    return callback
