"""Stage 1 of a run: the command line, an experiment and `conf/` become one config. All of Hydra is here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from regente.config.composition_errors import explain, named_option
from regente.config.discovery import config_dirs, groups, place, require_experiment, suggest
from regente.config.interpolation import pin_hydra, register_resolvers
from regente.config.overrides import bad_override, key_of, lenient
from regente.config.root_keys import keep_saving
from regente.config.schema import ROOT_KEYS, Root, Sweep
from regente.errors import ConfigError, Problem

COUNTS = ("min_steps", "max_steps", "min_epochs", "max_epochs")  # of the trainer
DIRECTORIES = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.output_subdir",
    "hydra.job.chdir",
)
ROOT = "train"  # the config that experiments are made of


class _ConfigDirs(SearchPathPlugin):
    def manipulate_search_path(self, search_path: Any) -> None:
        for path in config_dirs():
            search_path.append("regente", f"file://{path}")


@cache
def register() -> None:
    """Tell Hydra the root schema and where configs are."""
    schema = OmegaConf.structured(Root)
    OmegaConf.set_struct(schema, False)  # keys of one's own, which `check` looks at
    ConfigStore.instance().store("root_schema", schema)
    Plugins.instance().register(_ConfigDirs)


@contextmanager
def _hydra() -> Iterator[None]:
    register()
    register_resolvers()
    GlobalHydra.instance().clear()
    # `hydra.initialize` would look for its caller's file through every imported module, 0.3 s once torch is imported
    with hydra.initialize_config_dir(str(config_dirs()[0]), job_name="regente", version_base="1.3"):
        yield


@dataclass(frozen=True)
class Composed:
    """A composed config, with its interpolations still in it."""

    experiment: str
    overrides: list[str]
    node: DictConfig
    hydra: DictConfig
    sweep: dict[str, Any] = field(default_factory=dict)  # the fields of Sweep

    @property
    def multirun(self) -> bool:
        """Whether the config itself asks for a sweep (`hydra.mode: MULTIRUN`)."""
        return bool(self.hydra.mode and self.hydra.mode.name == "MULTIRUN")

    def yaml(self) -> str:
        """The config as it is frozen: secrets of the environment stay `${oc.env:NAME}`."""
        return OmegaConf.to_yaml(self.node)


def compose(experiment: str, overrides: Sequence[str]) -> Composed:
    """The experiment's config under the overrides.

    Raises:
        ConfigError: with every problem that composition alone can tell.
    """
    with _hydra():
        require_experiment(experiment)
        return _compose(experiment, overrides)


def recompose(
    frozen: str, overrides: Sequence[str], experiment: str | None = None, before: Sequence[str] = ()
) -> DictConfig:
    """A frozen config under overrides; GROUP=OPTION takes the option as `conf/` has it now.

    The chosen option is composed as in a run of `experiment` under the overrides `before`, where these are given: their
    other settings of the same group apply too.

    Raises:
        ConfigError: with every problem that composition alone can tell.
    """
    parts = {group for group in groups() if "/" not in group}  # not those of Hydra's own
    chosen = {key for override in overrides if (key := key_of(override)) in parts}
    fresh = [override for override in overrides if key_of(override).split(".")[0] in chosen]
    node: Any = OmegaConf.create(frozen)
    with _hydra():
        if fresh:
            if experiment is not None:
                require_experiment(experiment)
            kept = [override for override in before if key_of(override) not in chosen]
            composed = _compose(experiment or ROOT, [*kept, *fresh])
            for part in map(place, chosen):
                OmegaConf.update(node, part, OmegaConf.select(composed.node, part), merge=False)
        for override in overrides:
            if override not in fresh:
                _apply(node, override)
    whole_counts(node)
    return node  # type: ignore[no-any-return]


def whole_counts(node: DictConfig) -> None:
    """Make an int of a number of steps or epochs that YAML reads as a float, such as 1e5."""
    trainer = node.get("trainer")
    for key in COUNTS if isinstance(trainer, DictConfig) else ():
        if not OmegaConf.is_interpolation(trainer, key) and not OmegaConf.is_missing(trainer, key):
            value = trainer.get(key)
            if isinstance(value, float) and value.is_integer():
                trainer[key] = int(value)


def _apply(node: DictConfig, override: str) -> None:
    (parsed,) = parse([override])
    if parsed.is_sweep_override():
        raise ConfigError([Problem(override, "several values; a run goes on with one")])
    if not parsed.is_delete():
        OmegaConf.update(node, parsed.key_or_group, parsed.value(), merge=True, force_add=True)
        return
    *parents, last = parsed.key_or_group.split(".")
    parent: Any = OmegaConf.select(node, ".".join(parents)) if parents else node
    if not isinstance(parent, DictConfig) or last not in parent:
        raise ConfigError([Problem(override, "the run has no such setting")])
    del parent[last]


def _compose(experiment: str, overrides: Sequence[str]) -> Composed:
    problems = [
        Problem(override, "Regente makes the job directories, in runs/EXPERIMENT; leave it out")
        for override in overrides
        if key_of(override) in DIRECTORIES
    ]
    left = [override for override in overrides if key_of(override) not in DIRECTORIES]
    while True:
        try:
            node = hydra.compose(experiment, lenient(left), return_hydra_config=True)
            break
        except RecursionError:
            raise ConfigError([_own_root("includes itself")]) from None
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
            problem, culprit = explain(error, left)
            problems.append(problem)
            if culprit is None:
                if "No match in the defaults list" in str(error) and _root_file().parent != config_dirs()[-1]:
                    problems = [_own_root("has not the groups of this experiment")]
                raise ConfigError(problems) from error
            left.remove(culprit)
    problems += [named_option(key, node[key]) for key in groups() if isinstance(node.get(key), str)]
    if problems:
        raise ConfigError(problems)
    OmegaConf.set_readonly(node.hydra, None)
    node.hydra.job.name = experiment
    HydraConfig.instance().set_config(node)
    OmegaConf.set_readonly(node.hydra, None)
    hydra_node = node.hydra
    OmegaConf.set_struct(node, False)
    del node["hydra"]
    pin_hydra(node)
    if lacking := [key for key in ROOT_KEYS if key not in node]:
        raise ConfigError([_own_root(f"lacks {', '.join(lacking)}")])
    if hydra_node.runtime.choices.get("callbacks") != "none":
        keep_saving(node, overrides)
    return Composed(experiment, list(overrides), node, hydra_node, take_sweep(node))


def _root_file() -> Path:
    """The file of the root config; the user may have one of that name."""
    return next(path for folder in config_dirs() if (path := folder / f"{ROOT}.yaml").is_file())


def _own_root(what: str) -> Problem:
    remedy = "move it to experiments/NAME.yaml, with /train as its first default"
    return Problem(str(_root_file()), f"takes the place of Regente's root config, and {what}; {remedy}")


def take_sweep(node: DictConfig) -> dict[str, Any]:
    """Remove the settings of the sweep from a job's config and return them.

    Raises:
        ConfigError: for unknown settings.
    """
    sweep: Any = OmegaConf.to_container(node.pop("sweep")) if "sweep" in node else {}
    known = list(Sweep.__dataclass_fields__)
    if unknown := [key for key in sweep if key not in known]:
        raise ConfigError(
            [Problem(f"sweep.{key}", f"no such setting; {suggest(key, known)}") for key in unknown]
        )
    return dict(sweep)


def swept_keys(overrides: Sequence[str], params: Mapping[str, Any] | None) -> list[str]:
    """The keys that a sweep varies: those with several values on the command line, or in `hydra.sweeper.params`."""
    parsed = parse(overrides)
    swept = [override.key_or_group for override in parsed if override.is_sweep_override()]
    return list(dict.fromkeys([*(params or {}), *swept]))


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them; `glob()` looks at the options that a group has.

    Raises:
        ConfigError: with every one that cannot be read.
    """
    if any("=glob(" in override for override in overrides):
        with _hydra():
            return _parse(OverridesParser.create(GlobalHydra.instance().config_loader()), overrides)
    return _parse(OverridesParser.create(), overrides)


def _parse(parser: OverridesParser, overrides: Sequence[str]) -> list[Override]:
    parsed, problems = [], []
    for override in lenient(overrides):
        try:
            parsed += parser.parse_overrides([override])
        except OverrideParseException as error:
            problems.append(bad_override(error.override, str(error)))
    if problems:
        raise ConfigError(problems)
    return parsed
