"""Which jobs a sweep has, found and checked before the first one starts."""

import importlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from regente.config.compose import Composed, compose, parse, swept_keys
from regente.config.discovery import require_experiment
from regente.errors import ConfigError, Problem
from regente.sweeps.composer import Composer
from regente.sweeps.grid import Grid
from regente.sweeps.identity import Identities, sweep_identity
from regente.sweeps.protocols import Launcher, TrialSource, TrialSpec
from regente.sweeps.state import SweepFolder
from regente.sweeps.trials_file import table

OURS = "regente.sweeps."
BASIC = {"sweeper": "regente.sweeps.grid.Grid", "launcher": "regente.sweeps.local.Local"}  # for Hydra's own
OPTUNA_PLUGIN = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"  # Search takes its settings
SHOWN = 40  # problems in one message


@dataclass(frozen=True)
class Policy:
    """What `hydra.launcher` says that means the same on every launcher."""

    retries: int = 0
    max_minutes: float | None = None
    on_failure: str = "continue"


@dataclass
class Plan:
    """A sweep as the command line asks for it."""

    experiment: str
    overrides: list[str]
    base: Composed  # without what is swept
    composer: Composer
    identities: Identities = field(default_factory=Identities)
    source: Any = None
    jobs: list[tuple[str, TrialSpec]] = field(default_factory=list)  # of a source that is not adaptive
    repeated: int = 0  # trials that mean a job that is in the list already

    @property
    def folder(self) -> Path:
        """The directory of the sweep: the same for the same words, and for a larger grid."""
        varied = {**(self._node("sweeper").get("params") or {}), **dict.fromkeys(self._columns)}
        name = f"sweep-{sweep_identity(self.experiment, self.overrides, varied)}"
        return Path("runs") / self.experiment / name

    @property
    def fixed(self) -> list[str]:
        """The overrides that all jobs share."""
        return fixed(self.overrides)

    @property
    def swept(self) -> list[str]:
        """The keys that tell the jobs apart."""
        found = swept_keys(self.overrides, self._node("sweeper").get("params"))
        return list(dict.fromkeys([*found, *self._columns]))

    @property
    def _columns(self) -> tuple[str, ...]:
        """The keys of `sweep.trials_file`."""
        path = self.base.sweep["trials_file"]
        return tuple(key.lstrip("+") for key in table(path).keys) if path else ()

    @property
    def first(self) -> Composed:
        """A first job, as far as it can be told without asking the source: the first of several values."""
        words = [word for word in self.overrides if word not in self.fixed]
        first = [
            f"{p.get_key_element()}={next(iter(p.sweep_string_iterator()))}"
            for p in parse(words)
            if p.is_discrete_sweep()
        ]
        return self.composer.compose([*self.fixed, *(word.removeprefix("++") for word in first)])

    @property
    def our_search(self) -> bool:
        """Whether a search of ours is to run on a launcher that is not."""
        target = self._target("sweeper")
        return target != "regente.sweeps.grid.Grid" and target.startswith(OURS)

    @property
    def hydra_plugins(self) -> list[str]:
        """The sweeper and launcher that are plugins of Hydra."""
        named = [f"hydra/{kind}={self.base.hydra.runtime.choices[f'hydra/{kind}']}" for kind in KINDS]
        return [
            name for name, kind in zip(named, KINDS, strict=True) if not self._target(kind).startswith(OURS)
        ]

    @property
    def adaptive(self) -> bool:
        """Whether what comes next is decided while it runs."""
        return bool(_located(self._target("sweeper")).adaptive)

    def make_source(self, folder: Path) -> TrialSource:
        """Grid or search, as `hydra/sweeper` says; a search keeps its trials in the folder, which is there."""
        node = self._node("sweeper")
        cls = _located(self._target("sweeper"))
        config = {} if cls is Grid else self.composer.checked_config(self.fixed)[1]
        words = [
            word for word in self.overrides if not word.lstrip("+").startswith(("hydra.", "hydra/", "sweep."))
        ]
        given = {key: self.base.sweep[key] for key in ("zip", "trials_file") if self.base.sweep[key]}
        source: TrialSource = _made("hydra.sweeper", cls, folder, words, config, **node, **given)
        return source

    def make_launcher(self, config: dict[str, Any]) -> tuple[Launcher, Policy]:
        """The launcher for jobs like this one, and what holds on every launcher."""
        node = self._node("launcher")
        policy = Policy(**{key: node.pop(key) for key in Policy.__dataclass_fields__ if key in node})
        _require(policy)
        if self.base.hydra.runtime.choices["hydra/launcher"] == "basic":
            node["jobs"] = 1
        launcher: Launcher = _made(
            "hydra.launcher", _located(self._target("launcher")), self.folder, config, **node
        )
        return launcher, policy

    def _target(self, kind: str) -> str:
        target = str(self.base.hydra[kind]._target_)
        if target.startswith("hydra."):
            return BASIC[kind]
        return "regente.sweeps.search.Search" if target == OPTUNA_PLUGIN else target

    def _node(self, kind: str) -> dict[str, Any]:
        node: Any = OmegaConf.to_container(self.base.hydra[kind], resolve=True)
        return {key: value for key, value in node.items() if key != "_target_"}


KINDS = ("sweeper", "launcher")


def plan(experiment: str, overrides: Sequence[str]) -> Plan:
    """What the command line asks for; nothing of it is composed yet but what all jobs share.

    Raises:
        ConfigError: for what is wrong with that.
    """
    require_experiment(experiment)
    base = compose(experiment, fixed(overrides))
    found = Plan(experiment, list(overrides), base, Composer(experiment))
    pins = SweepFolder(found.folder).queue().get("pins", {})  # of its first command line
    found.composer.pins |= {
        name: path for name, path in pins.items() if Path(path.removeprefix("run:")).exists()
    }
    return found


def fixed(overrides: Sequence[str]) -> list[str]:
    """The overrides that give one value."""
    return [
        word
        for word, parsed in zip(overrides, parse(overrides), strict=True)
        if not parsed.is_sweep_override()
    ]


def ask(plan: Plan, source: TrialSource, words: Sequence[str]) -> None:
    """Refuse to start more jobs than `sweep.max_jobs`, with the line that confirms them."""
    most = plan.base.sweep["max_jobs"]
    if source.total is not None and source.total > most:
        shape = f" ({source.shape()})" if isinstance(source, Grid) else ""
        line = shlex.join(["regente", *words, f"sweep.max_jobs={source.total}"])
        what = f"{source.total:,} jobs{shape}; fewer values, or to run them all: {line}"
        raise ConfigError([Problem(f"sweep.max_jobs={most}", what)])


def fill_plan(plan: Plan, source: TrialSource) -> None:
    """Compose and check every job, or, of a search, what its `probes` say.

    Raises:
        ConfigError: with all problems of all jobs, each once, and the jobs that have it.
    """
    found: dict[str, list[TrialSpec]] = {}
    seen: set[str] = set()
    number = 0
    for trial in _probes(source) if source.adaptive else iter(source.ask, None):
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
        if id_ in seen:
            plan.repeated += 1
        else:
            seen.add(id_)
            plan.jobs.append((id_, trial))
    if found:
        raise ConfigError([_problem(plan, text, trials, number) for text, trials in _first(found)])


def _probes(source: TrialSource) -> Iterator[TrialSpec]:
    probes: Iterable[list[str]] = getattr(source, "probes", list)()
    return (TrialSpec(number, words) for number, words in enumerate(probes))


def _first(found: dict[str, list[TrialSpec]]) -> list[tuple[str, list[TrialSpec]]]:
    return sorted(found.items(), key=lambda item: -len(item[1]))[:SHOWN]


def _problem(plan: Plan, text: str, trials: list[TrialSpec], number: int) -> Problem:
    """A problem with the jobs that have it; those that all have need no list."""
    if len(trials) == number:
        return Problem("", text)
    jobs = ", ".join(f"#{trial.number}" for trial in trials[:5]) + (" ..." if len(trials) > 5 else "")
    first = " ".join(varied(trials[0].overrides, plan.swept))
    kind = "job" if len(trials) == 1 else "jobs"
    return Problem("", f"{text} ({kind} {jobs} of {number}: {first}; none was started)")


def varied(overrides: Sequence[str], swept: Sequence[str]) -> list[str]:
    """The overrides that tell a job from the others of its sweep."""
    found = [word for word in overrides if word.lstrip("+~").partition("=")[0] in swept]
    return found or list(overrides)


def _require(policy: Policy) -> None:
    problems = []
    if policy.retries < 0:
        problems.append(Problem(f"hydra.launcher.retries={policy.retries}", "must be at least 0"))
    if policy.max_minutes is not None and policy.max_minutes <= 0:
        problems.append(
            Problem(f"hydra.launcher.max_minutes={policy.max_minutes}", "must be above 0, or null")
        )
    if policy.on_failure not in ("continue", "stop"):
        what = "no such way to go on; there is: continue, stop"
        problems.append(Problem(f"hydra.launcher.on_failure={policy.on_failure}", what))
    if problems:
        raise ConfigError(problems)


def _located(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _made(where: str, cls: Any, *args: Any, **settings: Any) -> Any:
    try:
        return cls(*args, **settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError([Problem(where, str(error).partition(") ")[2] or str(error))]) from error
