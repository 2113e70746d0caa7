"""Step 1 of a run: the command line, an experiment and `conf/` become one config. All of Hydra is here."""

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from yaml import YAMLError

from regente.catalog import config_dirs, groups, require_experiment, suggest
from regente.errors import ConfigError, Problem, RegenteError


@dataclass
class Monitor:
    """What "best" means: the metric's logged name, and `min` or `max`."""

    metric: str = MISSING
    mode: str = MISSING


@dataclass
class Tracking:
    """Where MLflow records, `uri` null being nowhere, and which weights and model go there."""

    uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    checkpoints: str = "best"
    log_model: bool = True
    create: bool = False


@dataclass
class Sweep:
    """What holds for a sweep as a whole; not a part of its jobs."""

    max_jobs: int = 1000  # more than so many have to be confirmed
    max_minutes: float | None = None  # after which no further job is started
    zip: Any = None  # keys that go together, or lists of such keys
    points: str | None = None  # a CSV file with a row for each job


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
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)


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


def recompose(frozen: str, overrides: Sequence[str]) -> DictConfig:
    """A frozen config under overrides; GROUP=OPTION takes the option as `conf/` has it now.

    Raises:
        ConfigError: with every problem that composition alone can tell.
    """
    chosen = {key for override in overrides if (key := _key(override)) in groups()}
    fresh = [override for override in overrides if _key(override).split(".")[0] in chosen]
    node: Any = OmegaConf.create(frozen)
    with _hydra():
        if fresh:
            composed = _compose(ROOT, fresh)
            for group in chosen:
                node[group] = composed.node[group]
        for override in overrides:
            if override not in fresh:
                _apply(node, override)
    return node  # type: ignore[no-any-return]


def _apply(node: DictConfig, override: str) -> None:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except OverrideParseException as error:
        raise ConfigError([_bad_override(override, str(error))[0]]) from error
    if parsed.is_sweep_override():
        raise ConfigError([Problem(override, "has several values; one would be right")])
    if not parsed.is_delete():
        OmegaConf.update(node, parsed.key_or_group, parsed.value(), merge=True, force_add=True)
        return
    *parents, last = parsed.key_or_group.split(".")
    parent: Any = OmegaConf.select(node, ".".join(parents)) if parents else node
    if not isinstance(parent, DictConfig) or last not in parent:
        raise ConfigError([Problem(override, "the run has no such setting")])
    del parent[last]


def _compose(experiment: str, overrides: Sequence[str]) -> Composed:
    problems: list[Problem] = []
    left = list(overrides)
    while True:
        try:
            node = hydra.compose(experiment, lenient(left), return_hydra_config=True)
            break
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            problem, culprit = _explain(error, left)
            problems.append(problem)
            if culprit is None:
                raise ConfigError(problems) from error
            left.remove(culprit)
    if problems:
        raise ConfigError(problems)
    OmegaConf.set_readonly(node.hydra, None)
    hydra_node = node.hydra
    OmegaConf.set_struct(node, False)
    del node["hydra"]
    return Composed(experiment, list(overrides), node, hydra_node, take_sweep(node))


def take_sweep(node: DictConfig) -> dict[str, Any]:
    """Take what holds for the sweep out of a job's config.

    Raises:
        ConfigError: for settings that there are not.
    """
    sweep: Any = OmegaConf.to_container(node.pop("sweep")) if "sweep" in node else {}
    known = list(Sweep.__dataclass_fields__)
    if unknown := [key for key in sweep if key not in known]:
        raise ConfigError(
            [Problem(f"sweep.{key}", f"no such setting; {suggest(key, known)}") for key in unknown]
        )
    return dict(sweep)


def lenient(overrides: Sequence[str]) -> list[str]:
    """`key=value` as `++key=value`: whether a class takes the key is its signature's to say, in `check`."""
    chosen = groups()

    def mark(override: str) -> str:
        key = re.match(r"([A-Za-z_][\w.]*)=", override)
        if key is None or key[1] in chosen or key[1].startswith("hydra."):
            return override
        return f"++{override}"

    return [mark(override) for override in overrides]


def plain_overrides(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The values by dotted key, if all that the overrides do is to set; none if one chooses, adds or removes.

    Raises:
        ConfigError: for one that cannot be read.
    """
    parser, values = OverridesParser.create(), {}
    for word in overrides:
        try:
            parsed = parser.parse_override(word)
        except HydraException as error:
            raise ConfigError([_bad_override(word, str(error))[0]]) from error
        if parsed.type is None or parsed.type.name != "CHANGE" or parsed.key_or_group in groups():
            return None
        if parsed.is_sweep_override():
            raise ConfigError([Problem(word, "several values; a run goes on with one")])
        values[parsed.key_or_group] = parsed.value()
    return values


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
            problems.append(_bad_override(error.override, str(error))[0])
    if problems:
        raise ConfigError(problems)
    return parsed


def _explain(error: Exception, overrides: list[str]) -> tuple[Problem, str | None]:
    """What a composition error means, and the override to blame for it, if one is."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not find '(\S+?)'", text)):
        return _missing_option(found[1], overrides)
    if isinstance(error, OverrideParseException):
        return _bad_override(error.override, text)
    if isinstance(error, YAMLError) or isinstance(error.__cause__, YAMLError):
        return _bad_yaml(error), None
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    key = re.search(r"(?:full_key: |override ')([\w.]+)|override '\+*([\w.]+)", text)
    name = (key[1] or key[2]) if key else ""
    culprit = next((o for o in overrides if name and _key(o) == name), None)
    culprit = culprit or next((o for o in overrides if _key(o) and _key(o) in first), None)
    if "could not be converted to Integer" in f"{text}{error.__cause__}":
        return Problem(culprit or name, "needs a whole number"), culprit
    if "Ambiguous value for argument" in text:
        return Problem(
            culprit or name, "several values; to run them all, one after the other, add -m"
        ), culprit
    if first.startswith("Config group override must be"):
        culprit = next((o for o in overrides if _key(o) in groups() and _is_no_name(o)), None)
        if culprit:
            group, option = _key(culprit), culprit.partition("=")[2]
            what = f"a group takes the name of an option; {_options(group)}"
            if option in groups()[group]:
                what = f"reads as a number; quoted it is the option: \"{group}='{option}'\""
            return Problem(culprit, what), culprit
    return Problem(culprit or name, first.rstrip(".")), culprit


def _is_no_name(override: str) -> bool:
    """Whether the value is null, true, false or a number, to which `nan` and `inf` belong too."""
    parsed = OverridesParser.create().parse_override(override)
    return not parsed.is_delete() and not isinstance(parsed.value(), str | list)


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _options(group: str) -> str:
    return "there is: " + ", ".join(groups().get(group, {}))


def _missing_option(path: str, overrides: list[str]) -> tuple[Problem, str | None]:
    group, _, option = path.rpartition("/")
    culprit = next((o for o in overrides if _key(o).split("@")[0] == group and o.endswith(option)), None)
    known = list(groups().get(group, {}))
    what = f"no such {group}; {suggest(option, known)}" if known else "no such config file"
    return Problem(culprit or path, what), culprit


def _bad_override(override: str, text: str) -> tuple[Problem, str | None]:
    raw = override.removeprefix("++")
    if "=" not in raw:
        what = "not a setting; write key=value, without blanks around the ="
    elif raw.endswith("=") or "= " in raw:
        what = "no blanks around the =, and quotes around a value with blanks: 'key=\"a b\"'"
    else:
        said = [line.strip() for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
        detail = next(
            (line for line in said if re.match(r"(mismatched|extraneous|no viable|missing|token)", line)), ""
        )
        detail = (
            f"cannot be read ({detail})" if detail else "cannot be read; is a bracket or a quote left open?"
        )
        what = f"{detail}; quote it for the shell and for Hydra: 'key=\"a b\"'"
    return Problem(raw, what), raw


def _bad_yaml(error: Exception) -> Problem:
    cause: Any = error if isinstance(error, YAMLError) else error.__cause__
    mark = getattr(cause, "problem_mark", None) or getattr(cause, "context_mark", None)
    if mark is None:
        return Problem("", f"bad YAML: {cause}")
    where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}"
    if "'\\t'" in str(cause):
        return Problem(where, "bad YAML: a tab; YAML wants blanks")
    return Problem(where, f"bad YAML: {cause.problem or cause.context}; look at the blanks before this line")


def resolve(config: DictConfig | str, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The config, or the YAML text of one, as plain data; with `parts`, only these of its root keys.

    Raises:
        ConfigError: with every value that is missing and every reference that leads nowhere.
    """
    node = OmegaConf.create(config) if isinstance(config, str) else config
    problems: list[Problem] = []
    if parts is not None:
        plain: Any = {
            key: _plain(_value(node, key, key, problems), key, problems)
            for key in map(str, node)
            if key in parts
        }
    else:
        plain = _plain(node, "", problems)
    if problems:
        raise ConfigError(problems)
    assert isinstance(plain, dict)
    return plain


def _plain(node: Any, path: str, problems: list[Problem]) -> Any:
    if isinstance(node, DictConfig):
        keys: list[Any] = list(node.keys())
        join: Callable[[Any], str] = lambda key: f"{path}.{key}" if path else str(key)  # noqa: E731
    elif isinstance(node, ListConfig):
        keys = list(range(len(node)))
        join = lambda key: f"{path}[{key}]"  # noqa: E731
    else:
        return node
    values = {key: _plain(_value(node, key, join(key), problems), join(key), problems) for key in keys}
    return values if isinstance(node, DictConfig) else list(values.values())


def _value(node: DictConfig | ListConfig, key: Any, path: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(node, key):
        options = f"; {_options(path)}" if path in groups() else ""
        problems.append(Problem(path, f"has no value; give it one: {path}=...{options}"))
        return None
    try:
        return node[key]
    except InterpolationToMissingValueError:
        return None  # the place that has no value is a problem already
    except OmegaConfBaseException as error:
        text = node._get_node(key)._value()  # type: ignore[union-attr]
        found = re.search(r"Interpolation key '(.*?)' not found", str(error))
        reason = f"{found[1]} does not exist" if found else str(error).splitlines()[0]
        problems.append(Problem(path, f"refers to {text}, but {reason}"))
        return None


def to_yaml(node: Any, *, resolve: bool = False) -> str:
    """A config as YAML text; with `resolve` the references are replaced by what they point to."""
    return OmegaConf.to_yaml(node, resolve=resolve)


class _Through(BaseException):
    """Carries an error through Hydra, which would print words of its own about an ordinary one."""

    def __init__(self, error: RegenteError) -> None:
        self.error = error


def run_hydra(
    experiment: str, overrides: Sequence[str], flags: Sequence[str], task: Callable[[Any], Any]
) -> None:
    """Hand the command line to Hydra itself: multirun, `--info` and its plugins are its own."""
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
        raise ConfigError([_explain(error, list(overrides))[0]]) from error
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
