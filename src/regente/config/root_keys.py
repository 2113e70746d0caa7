"""Root keys that Hydra + Lightning projects have beside those of Regente: what each of them is here."""

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from regente.config.discovery import config_dirs
from regente.config.interpolation import references
from regente.config.overrides import key_of
from regente.config.signatures import TargetNotFound, read
from regente.errors import ConfigError, Problem

OWN = ("vars", "paths")  # places for variables of one's own
LEFT_OUT = ("task_name", "extras", "print_config", "ignore_warnings")  # names and terminals are Regente's
# The value that changes nothing, and what to write instead of any other
ELSEWHERE: dict[str, tuple[Any, str]] = {
    "ckpt_path": (None, "regente resume RUN goes on with a run; init_from=FILE starts from its weights"),
    "train": (True, "regente evaluate RUN tests a model without training it; leave this out"),
    "logger": (None, "Lightning's loggers are the group loggers here: loggers=csv, tensorboard or wandb"),
    "optimized_metric": (
        None,
        "monitor.metric and monitor.mode say what is best, in a search too; leave this out",
    ),
}
RECORDED = ("tags", "notes")  # settings of `tracking`
SAVING = ("checkpoint", "resume")  # callbacks of conf/callbacks/default.yaml
STARTS = re.compile(r"_(spawn|fork|notebook)(?=_|$)")  # how ranks start, which Regente does itself


def settle(config: DictConfig) -> None:
    """Turn such keys into the settings that they mean here; those that others refer to are variables and stay.

    Raises:
        ConfigError: for each that means nothing here, with what to write instead.
    """
    moved = {*LEFT_OUT, *ELSEWHERE, *RECORDED, "test"} & {*map(str, config)}
    shared = references(OmegaConf.to_yaml(config)) if moved else ()
    problems = []
    for key in [key for key in LEFT_OUT if key in config and key not in shared]:
        del config[key]
    for key, (nothing, what) in ELSEWHERE.items():
        if key in config and key not in shared:
            value = config.pop(key)
            if key == "logger" and isinstance(value, DictConfig):
                config.loggers = value
                continue
            if value != nothing and not (nothing is None and not value):
                problems.append(Problem(key, what))
    for key in [key for key in RECORDED if key in config]:
        config.tracking[key] = config[key]
    if config.get("seed", 0) is None:
        config.seed = 0
    test, trainer = config.get("test", True), config.get("trainer")
    for key in [key for key in (*RECORDED, "test") if key not in shared]:
        config.pop(key, None)
    if isinstance(trainer, DictConfig):
        if test is False:
            trainer.limit_test_batches = 0
        if isinstance(trainer.get("strategy"), str):
            trainer.strategy = STARTS.sub("", str(trainer.strategy))
        for name, group in (("callbacks", "callbacks"), ("logger", "loggers")):
            own: Any = trainer.get(name)  # as Lightning's Trainer takes them: one, or a list
            if name == "callbacks" or isinstance(own, DictConfig | ListConfig):
                nodes: Any = [own] if own and "_target_" in own else own or []
                config[group] = config[group] or {}
                places: Any = nodes if isinstance(nodes, DictConfig) else range(len(nodes))
                for place in places:
                    config[group][f"trainer_{place}"] = nodes[place]
                trainer.pop(name, None)
    if problems:
        raise ConfigError(problems)


def keep_saving(config: DictConfig, overrides: Sequence[str]) -> None:
    """Add the packaged callbacks to the user's own where these do not save: no such class, and no null for the name."""
    removed = [key_of(override).removeprefix("callbacks.") for override in overrides if override[0] == "~"]
    given = config.callbacks or {}  # callbacks: null
    lacking = [name for name in SAVING if name not in (*given, *removed)]
    if not given or not lacking:
        return
    made = [str(each.get("_target_")) for each in given.values() if isinstance(each, DictConfig)]
    packaged: Any = OmegaConf.load(config_dirs()[-1] / "callbacks" / "default.yaml")
    for name in lacking:
        if not any(_is_a(target, packaged[name]._target_) for target in made):
            config.callbacks[name] = packaged[name]


def _is_a(target: str, base: str) -> bool:
    try:
        return read(target).derives_from(base) is not False
    except (TargetNotFound, SyntaxError):
        return False  # `check` reports it
