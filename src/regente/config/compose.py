"""Stage 1 of a run: the command line, an experiment and `conf/` become one config. All of Hydra is here."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from regente.config.composition_errors import bad_override, explain, key_of, named_option
from regente.config.discovery import config_dirs, groups, place, require_experiment, suggest
from regente.errors import ConfigError, Problem, RegenteError


@dataclass
class Monitor:
    """What "best" means: the metric's logged name, and `min` or `max`."""

    metric: str = MISSING
    mode: str = MISSING


@dataclass
class Tracking:
    """Where MLflow records (`uri` null: nowhere), and which weights and model go there."""

    uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    checkpoints: str = "best"
    log_model: bool = True
    create: bool = False


@dataclass
class Sweep:
    """Settings of a sweep as a whole; its jobs do not have them."""

    max_jobs: int = 1000  # a larger sweep is refused
    max_minutes: float | None = None  # after which no further job is started
    zip: Any = None  # keys whose values are paired, or lists of such keys
    trials_file: str | None = None  # a CSV file with a row for each job


@dataclass
class Root:
    """The keys at the root of every config; each part's own arguments are in its class's signature."""

    seed: int = MISSING
    init_from: str | None = None
    monitor: Monitor = field(default_factory=Monitor)
    data: Any = MISSING
    model: Any = MISSING
    task: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    loggers: Any = field(default_factory=dict)  # of Lightning, beside MLflow
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)


COUNTS = ("min_steps", "max_steps", "min_epochs", "max_epochs")  # of the trainer
DIRECTORIES = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.output_subdir",
    "hydra.job.chdir",
)
ROOT = "train"  # the config that experiments are made of
ROOT_KEYS = tuple(key for key in Root.__dataclass_fields__ if key != "sweep")  # of a job


class _ConfigDirs(SearchPathPlugin):
    def manipulate_search_path(self, search_path: Any) -> None:
        for path in config_dirs():
            search_path.append("regente", f"file://{path}")


@cache
def _register() -> None:
    ConfigStore.instance().store("root_schema", Root)
    Plugins.instance().register(_ConfigDirs)


@contextmanager
def _hydra() -> Iterator[None]:
    _register()
    GlobalHydra.instance().clear()
    with hydra.initialize(config_path=None, job_name="regente", version_base="1.3"):
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
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            problem, culprit = explain(error, left)
            problems.append(problem)
            if culprit is None:
                raise ConfigError(problems) from error
            left.remove(culprit)
    problems += [named_option(key, node[key]) for key in groups() if isinstance(node.get(key), str)]
    if problems:
        raise ConfigError(problems)
    OmegaConf.set_readonly(node.hydra, None)
    hydra_node = node.hydra
    OmegaConf.set_struct(node, False)
    del node["hydra"]
    return Composed(experiment, list(overrides), node, hydra_node, take_sweep(node))


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


def lenient(overrides: Sequence[str]) -> list[str]:
    """`key=value` as `++key=value`: `check` decides by the signature of the class whether it takes the key."""
    chosen = groups()

    def mark(override: str) -> str:
        key = re.match(r"([A-Za-z_][\w.]*)=", override)
        if key is None or key[1] in chosen or key[1].startswith("hydra."):
            return override
        return f"++{override}"

    return [mark(override) for override in overrides]


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


class _Through(BaseException):
    """Carries an error through Hydra, which would print a message of its own for an ordinary exception."""

    def __init__(self, error: RegenteError) -> None:
        self.error = error


def run_hydra(
    experiment: str, overrides: Sequence[str], flags: Sequence[str], task: Callable[[Any], Any]
) -> None:
    """Hand the command line to Hydra itself, for its plugins and for `--info`."""
    _register()
    GlobalHydra.instance().clear()

    def guarded(node: Any) -> Any:
        try:
            return task(node)
        except RegenteError as error:
            raise _Through(error) from error

    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *flags, *lenient(overrides)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through to us instead of being printed
    try:
        hydra.main(config_path=None, config_name=experiment, version_base="1.3")(guarded)()
    except _Through as through:
        raise through.error from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([explain(error, list(overrides))[0]]) from error
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
