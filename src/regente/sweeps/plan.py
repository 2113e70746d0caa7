"""The plan of a sweep: its jobs, all checked before the first one starts."""

import importlib
import inspect
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from regente.config.compose import Composed, compose, parse, swept_keys
from regente.config.discovery import require_experiment
from regente.config.overrides import key_of
from regente.errors import ConfigError, Problem
from regente.sweeps.adaptive_seeds import expand_until
from regente.sweeps.composer import Composer
from regente.sweeps.grid import Grid
from regente.sweeps.identity import Identities, sweep_identity
from regente.sweeps.protocols import Launcher, TrialSource, TrialSpec
from regente.sweeps.state import SweepFolder
from regente.sweeps.trials_file import table
from regente.training.prepare import set_env

BASIC = {"sweeper": "regente.sweeps.grid.Grid", "launcher": "regente.sweeps.local.Local"}  # for Hydra's own
OPTUNA_PLUGIN = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"  # Search takes its settings
PARTS = {  # by the key below `hydra`: the class of Hydra's plugins, our protocol, and its methods
    "sweeper": (Sweeper, TrialSource, ("ask", "tell")),
    "launcher": (HydraLauncher, Launcher, ("submit", "poll", "stop", "close")),
}
MAX_PROBLEMS = 40  # in one message
MAX_NUMBERS = 5  # of jobs, for one problem


@dataclass(frozen=True)
class Policy:
    """The settings of `hydra.launcher` that mean the same for every launcher."""

    retries: int = 0
    max_minutes: float | None = None
    on_failure: str = "continue"


@dataclass
class Plan:
    """A sweep as the command line asks for it."""

    experiment: str
    overrides: list[str]
    base: Composed  # with the fixed overrides alone
    composer: Composer
    identities: Identities = field(default_factory=Identities)
    jobs: list[tuple[str, TrialSpec]] = field(default_factory=list)  # of a source that is not adaptive
    repeated: int = 0  # trials whose job is in the list already

    @property
    def folder(self) -> Path:
        """The directory of the sweep: the same for the same command line, and for more values of the same keys."""
        keys = {**(self._node("sweeper").get("params") or {}), **dict.fromkeys(self._columns)}
        name = f"sweep-{sweep_identity(self.experiment, self.overrides, keys)}"
        return Path("runs") / self.experiment / name

    @property
    def fixed(self) -> list[str]:
        """The overrides that all jobs share."""
        return fixed(self.overrides)

    @property
    def swept(self) -> list[str]:
        """The keys in which the jobs differ."""
        found = swept_keys(self.overrides, self._node("sweeper").get("params"))
        return list(dict.fromkeys([*found, *self._columns]))

    @property
    def _columns(self) -> tuple[str, ...]:
        """The keys of `sweep.trials_file`."""
        path = self.base.sweep["trials_file"]
        return tuple(key.lstrip("+") for key in table(path).keys) if path else ()

    @property
    def first(self) -> Composed:
        """A first job, made without the source: the first value of each key that has several."""
        swept = [word for word in self.overrides if word not in self.fixed]
        first = [
            f"{p.get_key_element()}={next(iter(p.sweep_string_iterator()))}"
            for p in parse(swept)
            if p.is_discrete_sweep()
        ]
        return self.composer.compose([*self.fixed, *(word.removeprefix("++") for word in first)])

    @property
    def hydra_plugins(self) -> list[str]:
        """The sweeper and launcher that are plugins of Hydra, as overrides; those are run by Hydra itself."""
        return [
            f"hydra/{part}={self.base.hydra.runtime.choices[f'hydra/{part}']}"
            for part, (plugin, _, _) in PARTS.items()
            if issubclass(self.part_class(part), plugin)
        ]

    @property
    def adaptive(self) -> bool:
        """Whether results decide which trials come next."""
        return bool(self.part_class("sweeper").adaptive)

    def make_source(self, folder: Path) -> TrialSource:
        """The source that `hydra/sweeper` names; a search stores its trials in the folder, which has to be there."""
        cls = self.part_class("sweeper")
        config = {} if cls is Grid else self.composer.checked_config(self.fixed)[1]
        words = [
            word for word in self.overrides if not word.lstrip("+").startswith(("hydra.", "hydra/", "sweep."))
        ]
        given = {key: self.base.sweep[key] for key in ("zip", "trials_file") if self.base.sweep[key]}
        source: TrialSource = _make("sweeper", cls, folder, words, config, **self._node("sweeper"), **given)
        return source

    def make_launcher(self, config: dict[str, Any]) -> tuple[Launcher, Policy]:
        """The launcher for jobs with a config like this one, and the settings that hold for every launcher."""
        node = self._node("launcher")
        policy = Policy(**{key: node.pop(key) for key in Policy.__dataclass_fields__ if key in node})
        _check_policy(policy)
        if self.base.hydra.runtime.choices["hydra/launcher"] == "basic":
            node["jobs"] = 1
        launcher: Launcher = _make("launcher", self.part_class("launcher"), self.folder, config, **node)
        return launcher, policy

    def part_class(self, part: str) -> Any:
        """The class of the `sweeper` or the `launcher`: a plugin of Hydra, or one that satisfies our protocol.

        Raises:
            ConfigError: for any other class, and for one that cannot be imported.
        """
        target = str(self.base.hydra[part].get("_target_"))
        if target.startswith("hydra."):
            target = BASIC[part]
        elif target == OPTUNA_PLUGIN:
            target = "regente.sweeps.search.Search"
        module, _, name = target.rpartition(".")
        where = f"hydra.{part}._target_={target}"
        try:
            cls = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            what = f"cannot be imported ({error}); give module.Class, of a module in this folder or installed"
            raise ConfigError([Problem(where, what)]) from error
        plugin, protocol, methods = PARTS[part]
        missing = [each for each in methods if not callable(getattr(cls, each, None))]
        missing += ["adaptive"] * (part == "sweeper" and not hasattr(cls, "adaptive"))
        if isinstance(cls, type) and (issubclass(cls, plugin) or not missing):
            return cls
        what = (
            f"is not a {protocol.__name__}, it has no {', '.join(missing)}; see regente.{protocol.__name__}"
        )
        raise ConfigError([Problem(where, what)])

    def _node(self, kind: str) -> dict[str, Any]:
        node: Any = OmegaConf.to_container(self.base.hydra[kind], resolve=True)
        return {key: value for key, value in node.items() if key != "_target_"}


def make_plan(experiment: str, overrides: Sequence[str]) -> Plan:
    """What the command line asks for; only what all jobs share is composed yet.

    Raises:
        ConfigError: for what is wrong with that.
    """
    require_experiment(experiment)
    overrides = expand_until(overrides)
    base = compose(experiment, fixed(overrides))
    set_env(base)
    plan = Plan(experiment, list(overrides), base, Composer(experiment))
    queue = SweepFolder(plan.folder).queue()
    pins = queue.pins if queue and not queue.why_not_own else {}  # of its first command line
    plan.composer.pins |= {
        name: path for name, path in pins.items() if Path(path.removeprefix("run:")).exists()
    }
    return plan


def fixed(overrides: Sequence[str]) -> list[str]:
    """The overrides that have one value."""
    return [
        word
        for word, parsed in zip(overrides, parse(overrides), strict=True)
        if not parsed.is_sweep_override()
    ]


def confirm_size(plan: Plan, source: TrialSource, words: Sequence[str]) -> None:
    """Refuse to start more jobs than `sweep.max_jobs`; the message holds the command line that confirms them."""
    most = plan.base.sweep["max_jobs"]
    if source.total is not None and source.total > most:
        shape = f" ({source.shape()})" if isinstance(source, Grid) else ""
        line = shlex.join(["regente", *words, f"sweep.max_jobs={source.total}"])
        what = f"{source.total:,} jobs{shape}; give fewer values, or run them all: {line}"
        raise ConfigError([Problem(f"sweep.max_jobs={most}", what)])


def check_trials(plan: Plan, source: TrialSource) -> None:
    """Compose and check every job; of a search, its `extremes`.

    Raises:
        ConfigError: with all problems of all jobs, each once, with the jobs that have it.
    """
    found: dict[str, list[TrialSpec]] = {}
    ids: set[str] = set()
    number = 0
    for trial in _extremes(source) if source.adaptive else iter(source.ask, None):
        assert trial is not None
        number += 1
        try:
            composed, _ = plan.composer.checked_config(trial.overrides)
        except ConfigError as error:
            for problem in error.problems:
                found.setdefault(str(problem), []).append(trial)
            continue
        id_ = plan.identities.of(composed.node)
        if source.adaptive:
            continue
        if id_ in ids:
            plan.repeated += 1
        else:
            ids.add(id_)
            plan.jobs.append((id_, trial))
    if found:
        most = sorted(found.items(), key=lambda item: -len(item[1]))[:MAX_PROBLEMS]
        raise ConfigError([_problem(plan, text, trials, number) for text, trials in most])
    if not number and not source.adaptive:
        what = "one of the swept settings has no values, so there is no job; give it some"
        raise ConfigError([Problem(" ".join(plan.overrides), what)])


def _extremes(source: TrialSource) -> Iterator[TrialSpec]:
    extremes = getattr(source, "extremes", list)
    return (TrialSpec(number, words) for number, words in enumerate(extremes()))


def _problem(plan: Plan, text: str, trials: list[TrialSpec], number: int) -> Problem:
    """A problem with the jobs that have it; these are left out where all jobs have it."""
    if len(trials) == number:
        return Problem("", text)
    more = " ..." if len(trials) > MAX_NUMBERS else ""
    jobs = ", ".join(f"#{trial.number}" for trial in trials[:MAX_NUMBERS]) + more
    first = label(trials[0].overrides, plan.swept)
    noun = "job" if len(trials) == 1 else "jobs"
    return Problem("", f"{text} ({noun} {jobs} of {number}: {first}; none was started)")


def varied(jobs: Sequence[Sequence[str]], swept: Sequence[str]) -> list[str]:
    """The swept keys, and those that only some jobs have: a search may draw one under a condition."""
    common = set(jobs[0]).intersection(*jobs) if jobs else set()
    more = [key_of(word) for words in jobs for word in words if word not in common]
    return list(dict.fromkeys([*swept, *more]))


def swept_overrides(overrides: Sequence[str], swept: Sequence[str]) -> list[str]:
    """The overrides in which a job differs from the others of its sweep."""
    found = [word for word in overrides if word.lstrip("+~").partition("=")[0] in swept]
    return found or list(overrides)


def label(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """The same as a line for the user."""
    return " ".join(swept_overrides(overrides, swept))


def _check_policy(policy: Policy) -> None:
    problems = []
    if policy.retries < 0:
        problems.append(Problem(f"hydra.launcher.retries={policy.retries}", "must be at least 0"))
    if policy.max_minutes is not None and policy.max_minutes <= 0:
        problems.append(
            Problem(f"hydra.launcher.max_minutes={policy.max_minutes}", "must be above 0, or null")
        )
    if policy.on_failure not in ("continue", "stop"):
        problems.append(Problem(f"hydra.launcher.on_failure={policy.on_failure}", "must be continue or stop"))
    if problems:
        raise ConfigError(problems)


def _make(part: str, cls: Any, /, *args: Any, **settings: Any) -> Any:
    try:
        inspect.signature(cls).bind(*args, **settings)
    except TypeError as error:
        raise ConfigError([Problem(f"hydra.{part}", f"{cls.__name__}: {error}")]) from error
    made, protocol = cls(*args, **settings), PARTS[part][1]
    if not isinstance(made, protocol):
        attribute = {"sweeper": "total", "launcher": "slots"}[part]
        what = f"{cls.__name__} has no attribute {attribute}; see regente.{protocol.__name__}"
        raise ConfigError([Problem(f"hydra.{part}", what)])
    return made
