"""`hydra/sweeper=optuna`: a source of jobs whose settings Optuna draws, with what the finished ones came to in mind."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from regente.config.optional_packages import require
from regente.errors import ConfigError, Problem
from regente.jobs.job import TRIAL
from regente.sweeps.distributions import Space, space
from regente.sweeps.protocols import TrialResult, TrialSpec
from regente.sweeps.search_check import check
from regente.sweeps.trials_file import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regente.sweeps.study import Study

STOPPED = {128 + number for number in (1, 2, 15)}  # SIGHUP, SIGINT, SIGTERM: with the driver, not by a fault


class Search:
    """A TrialSource: see regente.sweeps.protocols; its settings are those of conf/hydra/sweeper/optuna.yaml.

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
        trials_file: str | None = None,
        **settings: Any,
    ) -> None:
        require("optuna", "optuna", "hydra/sweeper=optuna")
        require("cmaes", "optuna", "hydra/sweeper=optuna")
        if zip:
            raise ConfigError([Problem("sweep.zip", "a search draws each key by itself; leave it out")])
        self.space = space(overrides, params)
        self.first = self.space.rows(table(trials_file)) if trials_file else []
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
        from regente.sweeps.study import Study

        return Study(
            self.name, self.storage, self.objective.directions, self.space.drawn,
            sweep=self.sweep, sampler=self.settings["sampler"], pruner=self.settings["pruner"], first=self.first,
        )  # fmt: skip

    def probes(self) -> Iterator[list[str]]:
        """Overrides whose configs together hold each choice and both ends of each interval."""
        return self.space.probes()

    def ask(self) -> TrialSpec | None:
        """The next trial, as soon as there may be one."""
        over, failed = self.study.counts()
        if over + len(self.open) >= self.total or len(self.open) >= (self.settings["n_jobs"] or math.inf):
            return None
        if failed > self.settings["max_failure_rate"] * max(over, 1):
            self.why = f"{failed} of {over} trials failed, hydra.sweeper.max_failure_rate={self.settings['max_failure_rate']}"
            return None
        trial = self.study.ask(self.function)
        self.open.add(trial.number)
        return TrialSpec(trial.number, self.space.overrides(trial.params), self._env(trial._trial_id))

    def _env(self, trial: int) -> dict[str, str]:
        if not self.objective.pruned:
            return {}
        node = {
            "_target_": "regente.sweeps.report_trial.ReportTrial",
            "_recursive_": False,
            "storage": self.storage,
            "study": self.name,
            "trial": trial,
            "metric": self.objective.metrics[0],
            "pruner": self.settings["pruner"],
        }
        return {TRIAL: json.dumps(node)}

    def tell(self, trial: TrialSpec, outcome: TrialResult) -> None:
        """What became of a trial; one that was stopped is asked again by the next session.

        Raises:
            ConfigError: when a job that is done has no such metric.
        """
        self.open.discard(trial.number)
        if outcome.code in STOPPED:
            self.study.died(trial.number)
        elif outcome.code or outcome.pruned:
            self.study.tell(trial.number, None, pruned=outcome.pruned)
        else:
            self.study.tell(trial.number, self.objective.values(outcome.metrics))

    def figures(self) -> "dict[str, Figure]":
        """History, importance and parallel coordinates of the trials so far, or the Pareto front; as Optuna draws them."""
        from regente.sweeps.search_figures import figures

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
