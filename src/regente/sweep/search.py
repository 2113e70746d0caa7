"""`hydra/sweeper=optuna`: a source of jobs whose settings Optuna draws, with what the finished ones came to in mind."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from regente.errors import ConfigError, Problem
from regente.extras import require
from regente.sweep.distributions import Space, space
from regente.sweep.points import table
from regente.sweep.protocols import TRIAL, Outcome, Point
from regente.sweep.search_check import check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regente.sweep.study import Study

STOPPED = {128 + number for number in (1, 2, 15)}  # SIGHUP, SIGINT, SIGTERM: with the driver, not by a fault


class Search:
    """A Source: see regente.sweep.protocols; its settings are those of conf/hydra/sweeper/optuna.yaml.

    Raises:
        ConfigError: with everything that is wrong with the settings or with what is drawn from.
        MachineError: without the extra.
    """

    adaptive = True

    def __init__(
        self,
        folder: Path,
        overrides: list[str],
        config: dict[str, Any],
        *,
        params: Mapping[str, Any],
        zip: Any = None,  # noqa: A002
        points: str | None = None,
        **settings: Any,
    ) -> None:
        require("optuna", "optuna", "hydra/sweeper=optuna")
        require("cmaes", "optuna", "hydra/sweeper=optuna")
        if zip:
            raise ConfigError([Problem("sweep.zip", "a search draws each key by itself; leave it out")])
        self.space = space(overrides, params)
        self.first = self.space.rows(table(points)) if points else []
        self.objective = check(self.space, settings, config)
        self.settings = settings
        self.total = _total(self.space, settings)
        self.open: set[int] = set()  # trials that run now
        self.why = ""  # there are no more trials, though fewer than `total` are over
        self.storage = settings["storage"] or f"journal:{folder.resolve() / 'trials.jsonl'}"
        self.name = settings["study_name"] or folder.parent.name
        self.sweep = f"{folder.parent.name}/{folder.name}"
        self.function = _function(settings["custom_search_space"], config)

    @cached_property
    def study(self) -> "Study":
        """Optuna's; opened when the first trial is asked for, since only then the sweep is this process's own."""
        from regente.sweep.study import Study

        return Study(
            self.name, self.storage, self.objective.directions, self.space.drawn,
            sweep=self.sweep, sampler=self.settings["sampler"], pruner=self.settings["pruner"], first=self.first,
        )  # fmt: skip

    def probes(self) -> Iterator[list[str]]:
        """Overrides whose configs together hold each choice and both ends of each interval."""
        return self.space.probes()

    def ask(self) -> Point | None:
        """The next trial, as soon as there may be one."""
        over, failed = self.study.counts()
        if over + len(self.open) >= self.total or len(self.open) >= (self.settings["n_jobs"] or math.inf):
            return None
        if failed > self.settings["max_failure_rate"] * max(over, 1):
            self.why = f"{failed} of {over} trials failed, hydra.sweeper.max_failure_rate={self.settings['max_failure_rate']}"
            return None
        trial = self.study.ask(self.function)
        self.open.add(trial.number)
        return Point(trial.number, self.space.overrides(trial.params), self._env(trial._trial_id))

    def _env(self, trial: int) -> dict[str, str]:
        if not self.objective.pruned:
            return {}
        facts = {
            "storage": self.storage,
            "study": self.name,
            "trial": trial,
            "metric": self.objective.metrics[0],
            "pruner": self.settings["pruner"],
        }
        return {TRIAL: json.dumps(facts)}

    def tell(self, point: Point, outcome: Outcome) -> None:
        """What became of a trial; one that was stopped is asked again by the next session.

        Raises:
            ConfigError: when a job that is done has no such metric.
        """
        self.open.discard(point.number)
        if outcome.code in STOPPED:
            self.study.died(point.number)
        elif outcome.code or outcome.pruned:
            self.study.tell(point.number, None, pruned=outcome.pruned)
        else:
            self.study.tell(point.number, self.objective.values(outcome.metrics))

    def figures(self) -> "dict[str, Figure]":
        """History, importance and parallel coordinates of the trials so far, or the Pareto front; as Optuna draws them."""
        from regente.sweep.search_figures import figures

        return figures(self.study.study, self.objective.metrics)


def _total(found: Space, settings: dict[str, Any]) -> int:
    """How many trials there will be."""
    if not settings["sampler"]["_target_"].endswith("GridSampler"):
        return settings["n_trials"] or 20
    size = math.prod(len(each.listed or ()) for each in found.drawn.values())
    return min(settings["n_trials"] or size, size)


def _function(path: str | None, config: dict[str, Any]) -> Any:
    """The user's own function, called as the old plugin called it: with the config and the trial."""
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        what = f"no such function ({error}); give module.function, of a module in this folder or installed"
        raise ConfigError([Problem(f"hydra.sweeper.custom_search_space={path}", what)]) from error
    return lambda trial: function(OmegaConf.create(config), trial)
