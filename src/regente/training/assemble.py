"""From a frozen config to data, task and trainer, in one visible order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from regente.config.own_settings import without_own_settings
from regente.config.signatures import read
from regente.config.task_parts import given_to, has
from regente.errors import ConfigError, Problem, RegenteError
from regente.jobs.job import Job
from regente.models.features.cached_features import cache_features
from regente.tracking.recorder import run_name
from regente.training.checkpoints.initialization import ResumeState
from regente.training.checkpoints.saving import SafeSaving
from regente.training.grouped_steps import GroupedSteps, grouped_steps
from regente.training.learning_rates import Schedule
from regente.training.parameter_groups import ParameterGroups
from regente.training.performance import channels_last, compiled, fused
from regente.training.ranks.strategies import strategy


@dataclass(frozen=True)
class Parts:
    """What `trainer.fit` needs."""

    data: LightningDataModule
    task: LightningModule
    trainer: Trainer
    notes: list[str]  # what is done otherwise than asked

    @property
    def checkpoint(self) -> ModelCheckpoint | None:
        """The callback that knows the best weights, or without a metric to judge by the last, if there is one."""
        found = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        return min(found, key=lambda each: each.monitor is None) if found else None


def assemble(
    config: dict[str, Any],
    job: Job,
    callbacks: Sequence[Callback],
    logger: Logger | Sequence[Logger] | None = None,
    saving: SafeSaving | None = None,
    state: ResumeState | None = None,
    fitted_state: Mapping[str, Any] | None = None,
) -> Parts:
    """Seed, then make data, model, trainer, optimizer, scheduler, task.

    `state`: that from which the run goes on; `fitted_state`: what the data module takes from a run instead of fitting
    it to the training samples anew.

    Raises:
        ConfigError: when a part refuses its arguments.
    """
    seed_everything(config["seed"], workers=True, verbose=False)
    data = make("data", config["data"])
    if fitted_state is not None:
        data.load_fitted_state(fitted_state)
    model = make_model(config["model"], data) if config["model"]["_target_"] else None
    trainer = make_trainer(config, job, callbacks, logger, saving)
    notes = cache_features(model, data, config, trainer.strategy.root_device) if model is not None else []
    task: Any = make_task(config, model)
    if state is not None:  # positions are counted in calls
        steps = GroupedSteps(state.grouped_steps, config["seed"]) if state.grouped_steps else None
    else:
        steps, note = grouped_steps(config, data, task, callbacks)
        notes += [note] if note else []
    if steps is not None:
        task.optimize_by(steps)
    if config["trainer"].get("default_root_dir"):
        notes.append("trainer.default_root_dir is left out: what a run writes lies in its job directory")
    notes += [
        f"callbacks.{name}.dirpath={node['dirpath']} is left out: the weights of a run lie in its job directory"
        for name, node in config["callbacks"].items()
        if node and node.get("dirpath") and _keeps_weights(node) and not _inside(node["dirpath"], job)
    ]
    return Parts(data, task, trainer, [*notes, *_overfit_note(trainer)])


def make_model(node: dict[str, Any], data: LightningDataModule) -> nn.Module:
    """The model of a node, in the memory layout that its device likes."""
    model: nn.Module = make("model", without_own_settings("model", node))
    materialise(model, data)
    channels_last(model)
    if node.get("compile"):
        compiled(model)
    return model


def make_task(config: dict[str, Any], model: nn.Module | None) -> LightningModule:
    """The task, with those of the parts that its constructor takes."""
    scheduler = config["scheduler"]
    optimizer = make_optimizer(config)
    made = {
        "model": model,
        "optimizer": optimizer,
        "scheduler": make_scheduler(scheduler) if scheduler["_target_"] else None,
        "monitor": config["monitor"]["metric"],
        **make_loss_and_metrics(config),
    }
    node = config["task"]
    task: LightningModule = make("task", node, **{name: made[name] for name in given_to(node, config)})
    if isinstance(optimizer, ParameterGroups):
        optimizer.task = task
    return task


def make_scheduler(node: dict[str, Any]) -> Schedule:
    """What makes the schedule of an optimizer."""
    made = make("scheduler", without_own_settings("scheduler", node))
    if not isinstance(made, partial):
        raise ConfigError(
            [Problem("scheduler._partial_", "must be true: it is made when there is an optimizer")]
        )
    schedule = Schedule(made.func, *made.args, **made.keywords)
    schedule.interval, schedule.frequency = node.get("interval"), node.get("frequency")
    return schedule


def make_optimizer(config: dict[str, Any]) -> Any:
    """What makes the optimizer of parameters; None where the config has none."""
    node = config["optimizer"]
    if not node["_target_"]:
        return None
    factory = make("optimizer", fused(without_own_settings("optimizer", node), config["trainer"]))
    groups = {name: each for name, each in (node.get("groups") or {}).items() if each}
    decay = node.get("layer_decay")
    return ParameterGroups(factory, groups, decay) if groups or decay is not None else factory


def make_loss_and_metrics(config: dict[str, Any]) -> dict[str, Any]:
    """The loss and the metrics of a config, where it has them; lists of numbers, such as weights of classes, as tensors."""
    made: dict[str, Any] = {}
    if has(config, "loss"):
        node, takes = config["loss"], read(config["loss"]["_target_"]).parameters
        rows = [key for key, each in node.items() if isinstance(each, list) and key in takes]
        tensors = {
            key: torch.tensor(node[key], dtype=torch.get_default_dtype())
            for key in rows
            if takes[key].annotation.takes_tensor
        }
        made["loss"] = make(
            "loss", {key: each for key, each in node.items() if key not in tensors}, **tensors
        )
    if has(config, "metrics"):
        nodes = {name: node for name, node in config["metrics"].items() if node}
        made["metrics"] = {name: make(f"metrics.{name}", node) for name, node in nodes.items()}
    return made


def make_trainer(
    config: dict[str, Any],
    job: Job,
    callbacks: Sequence[Callback],
    logger: Logger | Sequence[Logger] | None,
    saving: SafeSaving | None = None,
) -> Trainer:
    """Lightning's trainer as the config wants it, quiet, and with nothing of its own outside the job directory."""
    made: Trainer = make(
        "trainer",
        _lightnings(config["trainer"]),
        callbacks=list(callbacks),
        logger=logger or False,
        **strategy(config["trainer"]),
        plugins=_with_saving(config["trainer"].get("plugins"), saving),
        default_root_dir=str(job.path),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return made


def _overfit_note(trainer: Any) -> list[str]:
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


def make(where: str, node: dict[str, Any], **given: Any) -> Any:
    """Instantiate a node; the finished objects in `given` are handed over as they are."""
    try:
        node = {"_convert_": "all", **node}
        if given:
            return instantiate({**node, "_partial_": True})(**given)
        return instantiate(node)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ImportError) and cause.__cause__:  # of an error in the module of a class
            cause = cause.__cause__
        if isinstance(cause, RegenteError):
            raise cause from None
        if isinstance(cause, MisconfigurationException) or (
            isinstance(cause, ValueError | TypeError) and _is_refusal(cause)
        ):
            raise ConfigError([Problem(where, str(cause))]) from error
        raise cause or error from None


def refused_by(error: BaseException) -> str:
    """ "optimizer" or "scheduler" if its constructor raised the error: the task calls these factories while it trains."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    maker = trace.tb_frame.f_locals.get("self") if trace is not None and _is_refusal(error) else None
    return (
        "optimizer" if isinstance(maker, Optimizer) else "scheduler" if isinstance(maker, LRScheduler) else ""
    )


def _is_refusal(error: BaseException) -> bool:
    """Whether a constructor raised by itself, as against a call deep inside of it that went wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # `make` itself: the call does not fit the arguments
    return trace is not None and trace.tb_frame.f_code.co_name in ("__init__", make.__name__)


def _with_saving(plugins: Any, saving: SafeSaving | None) -> list[Any]:
    """The user's plugins, and ours for checkpoints unless one of them is such."""
    given = plugins if isinstance(plugins, list) else [plugins] if plugins else []
    return (
        given if saving is None or any(isinstance(each, CheckpointIO) for each in given) else [*given, saving]
    )


def make_loggers(config: dict[str, Any], job: Job) -> list[Logger]:
    """The loggers of the config; what it leaves open is filled so that their files lie in the job directory.

    A resumed run continues them: the same run of Weights & Biases, the same folder of TensorBoard, a further CSV file.
    """
    made: list[Logger] = []
    for key, node in (config.get("loggers") or {}).items():
        if node:
            signature = read(str(node["_target_"]))
            filled: dict[str, Any] = {"save_dir": str(job.path), "name": key, "version": ""}
            if signature.derives_from("pytorch_lightning.loggers.WandbLogger"):
                filled |= {"name": run_name(job), "version": job.path.name}
            elif signature.derives_from("pytorch_lightning.loggers.CSVLogger"):
                # it would empty a folder that it continues, and numbers its own; a kill loses what is not flushed
                filled = {"save_dir": str(job.path), "name": key, "flush_logs_every_n_steps": 1}
            filled = {name: each for name, each in filled.items() if name in signature.parameters}
            logger = make(f"loggers.{key}", {**filled, **node})
            if not isinstance(logger, Logger):
                what = f"{type(logger).__name__} is not a Lightning logger"
                raise ConfigError([Problem(f"loggers.{key}", what)])
            made.append(logger)
    return made


def _keeps_weights(node: dict[str, Any]) -> bool:
    return str(node["_target_"]).endswith("ModelCheckpoint")


def _inside(folder: str, job: Job) -> bool:
    """Whether a folder lies in the job directory; the weights in any other would be lost to another run."""
    return not folder.startswith("~") and (job.path / folder).resolve().is_relative_to(job.path.resolve())


def make_callback(name: str, node: dict[str, Any], job: Job) -> Callback:
    if _keeps_weights(node):
        folder = node.get("dirpath")
        kept = job.path / folder if folder and _inside(folder, job) else job.checkpoints
        node = {**node, "dirpath": str(kept)}
    if str(node["_target_"]).endswith("ResumeStates") and not node.get("folder"):
        node = {**node, "folder": str(job.resume_states)}
    callback = make(f"callbacks.{name}", node)
    if not isinstance(callback, Callback):
        raise ConfigError(
            [Problem(f"callbacks.{name}", f"{type(callback).__name__} is not a Lightning callback")]
        )
    return callback
