"""Ranges that signatures do not tell: by place in the config, by class and argument, and between two arguments."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

PROFILERS = ("simple", "advanced", "pytorch", "xla")
_UNUSED = ("", "_find_unused_parameters_false", "_find_unused_parameters_true")
STRATEGIES = (
    "auto",
    *(f"ddp{start}{unused}" for start in ("", "_spawn", "_fork", "_notebook") for unused in _UNUSED),
    *(
        "fsdp",
        "fsdp_cpu_offload",
        "single_device",
        "single_tpu",
        "single_xla",
        "xla",
        "xla_debug",
        "deepspeed",
    ),
    *("deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload"),
    *("deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme"),
)
_DEVICES = re.compile(r"auto|-1|\d+|\d+(,\s*\d+)*,?")


@dataclass(frozen=True)
class Limit:
    """Which values are allowed, and the message about any other."""

    allows: Callable[[Any], bool]
    message: str
    choices: tuple[object, ...] = ()  # the values, where they are few


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def at_least(low: float, message: str = "") -> Limit:
    """Numbers from `low` on; whether another type is allowed is for the annotation to say."""
    return Limit(lambda v: not is_number(v) or v >= low, message or f"must be at least {low}")


def above(low: float) -> Limit:
    """Numbers above `low`."""
    return Limit(lambda v: not is_number(v) or v > low, f"must be above {low}")


def between(low: float, high: float) -> Limit:
    """Numbers from `low` to `high`, both included."""
    return Limit(lambda v: not is_number(v) or low <= v <= high, f"must be from {low} to {high}")


def _are_below_one(values: Any) -> bool:
    values = values if isinstance(values, list | tuple) else [values]
    return all(not is_number(v) or 0 <= v < 1 for v in values)


def one_of(*values: str | None) -> Limit:
    """One of these values; `null` stands for None."""
    names = ["null" if value is None else value for value in values]
    return Limit(lambda v: v in values, f"must be {', '.join(names[:-1])} or {names[-1]}", values)


def _is_share_or_count(value: Any) -> bool:
    return value is None or (value >= 0 if is_whole(value) else is_number(value) and 0 <= value <= 1)


def _is_devices(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_DEVICES.fullmatch(value))
    if isinstance(value, list):
        return len({str(each) for each in value}) == len(value) > 0
    return not is_whole(value) or value >= 1 or value == -1


def _may_be_strategy(value: Any) -> bool:
    """No slip in a name of Lightning's: other names a module of the user's may register."""
    if not isinstance(value, str) or value.lower() in STRATEGIES:
        return True
    near = get_close_matches(value.lower(), STRATEGIES, 1)
    return not near or abs(len(near[0]) - len(value)) > 1


_batches = Limit(_is_share_or_count, "needs a number of batches, or a share from 0.0 to 1.0")
_endless = at_least(-1, "must be at least 0, or -1 for no limit")
# What Lightning checks late or not at all, and what of it Regente does itself
BY_KEY = {
    "trainer.devices": Limit(
        _is_devices, "must be at least 1, -1 or auto for all there are, or a list of different numbers"
    ),
    "trainer.max_time": Limit(
        lambda v: not isinstance(v, str) or bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", v)), "needs DD:HH:MM:SS"
    ),
    "trainer.profiler": Limit(
        lambda v: not isinstance(v, str) or v in PROFILERS,
        f"must be {', '.join(PROFILERS)} or null",
        PROFILERS,
    ),
    "trainer.strategy": Limit(
        _may_be_strategy, "no such strategy; there is: auto, ddp, fsdp, deepspeed_stage_2, ..."
    ),
    "trainer.plugins": Limit(
        lambda v: not isinstance(v, str), "is a name, but plugins are classes; give a _target_, or null"
    ),
    "trainer.fast_dev_run": at_least(0),
    "trainer.accelerator": Limit(
        lambda v: v in ("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
        "no such accelerator; there is: auto, cpu, gpu, mps",
    ),
    "trainer.num_nodes": at_least(1),
    "trainer.max_epochs": _endless,
    "trainer.min_epochs": at_least(0),
    "trainer.max_steps": _endless,
    "trainer.accumulate_grad_batches": at_least(1),
    "trainer.log_every_n_steps": at_least(1),
    "trainer.check_val_every_n_epoch": at_least(1),
    "trainer.gradient_clip_val": at_least(0),
    "trainer.gradient_clip_algorithm": one_of("norm", "value", None),
    "trainer.val_check_interval": Limit(
        lambda v: v >= 1 if is_whole(v) else not isinstance(v, float) or 0 < v <= 1,
        "needs a number of batches from 1 on, or a share of an epoch above 0.0 up to 1.0",
    ),
    "trainer.num_sanity_val_steps": at_least(-1, "must be at least 0, or -1 for all"),
    "trainer.limit_train_batches": _batches,
    "trainer.limit_val_batches": _batches,
    "trainer.limit_test_batches": _batches,
    "trainer.overfit_batches": _batches,
    "monitor.mode": one_of("min", "max"),
    "tracking.checkpoints": one_of("none", "best", "last", "top_k"),
    "tracking.log_model": one_of("best", "all", "none"),
}

_nonnegative = at_least(0)
_share = between(0, 1)
_float_share = Limit(
    lambda v: not is_number(v) or (isinstance(v, float) and 0 <= v <= 1),
    "must be from 0.0 to 1.0, with a point",
)
_positive_share = Limit(lambda v: not is_number(v) or 0 < v <= 1, "must be above 0 and at most 1")
_betas = Limit(_are_below_one, "must be from 0 to below 1")
_mode = one_of("min", "max")
# What the constructors of libraries refuse, by the class that takes the argument, or its package
BY_CLASS: dict[str, dict[str, Limit]] = {
    "torch.optim.lr_scheduler.OneCycleLR": {
        "pct_start": _float_share, "anneal_strategy": one_of("cos", "linear"), "epochs": above(0), "total_steps": above(0),
    },
    "torch.optim.lr_scheduler.ReduceLROnPlateau": {
        "mode": _mode, "threshold_mode": one_of("rel", "abs"),
        "factor": Limit(lambda v: not is_number(v) or v < 1, "must be below 1"),
    },
    "torch.optim.lr_scheduler.LinearLR": {"start_factor": _positive_share, "end_factor": _share},
    "torch.optim.lr_scheduler.ConstantLR": {"factor": _share},
    "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts": {"T_0": above(0), "T_mult": at_least(1)},
    "torch.optim.lr_scheduler": {},
    "torch.optim": {
        **dict.fromkeys(("lr", "weight_decay", "momentum", "eps", "alpha", "lr_decay"), _nonnegative),
        **dict.fromkeys(("momentum_decay", "initial_accumulator_value"), _nonnegative),
        "betas": _betas, "rho": _share,
    },
    "torch.nn.modules.dropout": {"p": _share},
    "torch.nn.modules.loss": {"label_smoothing": _share},
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": {"mode": _mode},
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": {"mode": _mode, "save_top_k": at_least(-1)},
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": {
        "logging_interval": one_of("step", "epoch", None),
    },
    "optuna.pruners": {
        "n_startup_trials": _nonnegative, "n_warmup_steps": _nonnegative, "interval_steps": at_least(1),
        "n_min_trials": at_least(1), "percentile": between(0, 100),
        "min_resource": at_least(1), "reduction_factor": at_least(2), "bootstrap_count": _nonnegative,
    },
    "optuna.samplers": {"population_size": at_least(2), "crossover_prob": _share, "swapping_prob": _share},
}  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """What must hold between arguments of a class; a message names the first of them that the config gives."""

    owner: str  # the class, or its package
    between: tuple[str, ...]
    holds: Callable[..., bool]
    message: str


RELATIONS = (
    Relation(
        "torch.optim.sgd.SGD",
        ("nesterov", "momentum", "dampening"),
        lambda nesterov, momentum, dampening: not nesterov or (momentum > 0 and dampening == 0),
        "needs a momentum above 0 and no dampening",
    ),
    Relation(
        "regente.models.lstm.LSTM",
        ("tie_weights", "embedding", "hidden"),
        lambda tie, embedding, hidden: not tie or embedding == hidden,
        "tied weights have one width; give model.embedding and model.hidden the same",
    ),
    Relation(
        "regente.models.lstm.LSTM",
        ("tie_weights", "vocab_size", "num_classes"),
        lambda tie, vocab_size, num_classes: not tie or vocab_size == num_classes,
        "tied weights predict the words that they read; model.vocab_size and model.num_classes are different",
    ),
    Relation(
        "regente.data",
        ("test_share", "val_share"),
        lambda test, val: test + val < 1,
        "leaves nothing to train on; val_share and test_share together must be below 1",
    ),
    Relation(
        "regente.data.text.Text",
        ("num_classes", "vocab_size"),
        lambda num_classes, vocab_size: num_classes == vocab_size,
        "each word is a class; leave it at ${data.vocab_size}",
    ),
    Relation(
        "regente.data.text.Text",
        ("input_shape", "window"),
        lambda shape, window: list(shape) == [window],
        'the model sees a window; leave it at ["${data.window}"]',
    ),
    Relation(
        "regente.data.text_classification.TextClassification",
        ("input_shape", "max_tokens"),
        lambda shape, most: list(shape) == [most],
        'the model sees the tokens of a text; leave it at ["${data.max_tokens}"]',
    ),
)


def is_below(name: str, package: str) -> bool:
    """Whether a dotted name is the package, module or class itself, or stands below it."""
    return name == package or name.startswith(f"{package}.")


def limit_of(owner: str, argument: str) -> Limit | None:
    """The limit of an argument by the class that takes it; the most exact entry counts."""
    package = next((package for package in BY_CLASS if is_below(owner, package)), None)
    return BY_CLASS[package].get(argument) if package else None
