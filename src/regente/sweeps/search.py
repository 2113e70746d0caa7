"""`hydra/sweeper=optuna`: a source of trials whose settings Optuna draws, given the results of the finished ones."""

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
from regente.jobs.signals import SIGNALS
from regente.sweeps.distributions import Space, space
from regente.sweeps.protocols import TrialResult, TrialSpec
from regente.sweeps.search_check import check
from regente.sweeps.trials_file import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regente.sweeps.study import Study

INTERRUPTED = {128 + number for number in SIGNALS}  # exit codes of jobs that were stopped with the sweep


class Search:
    """A SearchSource (see regente.sweeps.protocols); its settings are those of conf/hydra/sweeper/optuna.yaml.

    Raises:
        ConfigError: with everything that is wrong with the settings or the distributions.
        MachineError: when Optuna is not installed.
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
        require("optuna", "hydra/sweeper=optuna")
        require("cmaes", "hydra/sweeper=optuna")
        if zip:
            raise ConfigError([Problem("sweep.zip", "a search draws each key by itself; leave it out")])
        self.space = space(overrides, params)
        self.first = self.space.rows(table(trials_file)) if trials_file else []
        self.objective = check(self.space, settings, config)
        self.settings = settings
        self.total = _total(self.space, settings)
        self.running: set[int] = set()  # the numbers of trials
        self.end_reason = ""
        self.storage = settings["storage"] or f"journal:{folder.resolve() / 'trials.jsonl'}"
        self.name = settings["study_name"] or folder.parent.name
        self.sweep = f"{folder.parent.name}/{folder.name}"
        self.function = _function(settings["custom_search_space"], config)

    @cached_property
    def study(self) -> "Study":
        """Opened for the first `ask`, since before that another process may still drive the sweep."""
        from regente.sweeps.study import Study

        return Study(
            self.name, self.storage, self.objective.directions, self.space.drawn,
            sweep=self.sweep, sampler=self.settings["sampler"], pruner=self.settings["pruner"], first=self.first,
        )  # fmt: skip

    def extremes(self) -> Iterator[list[str]]:
        """Overrides whose configs together hold each choice and both ends of each interval."""
        return self.space.extremes()

    def ask(self) -> TrialSpec | None:
        """The next trial; None while none may start, and at the end."""
        finished, failed = self.study.counts()
        limit = self.settings["n_jobs"] or math.inf
        if finished + len(self.running) >= self.total or len(self.running) >= limit:
            return None
        rate = self.settings["max_failure_rate"]
        if failed > rate * max(finished, 1):
            self.end_reason = f"{failed} of {finished} trials failed, hydra.sweeper.max_failure_rate={rate}"
            return None
        trial = self.study.ask(self.function)
        self.running.add(trial.number)
        return TrialSpec(trial.number, self.space.overrides(trial.params), self._env(trial.number))

    def _env(self, number: int) -> dict[str, str]:
        if not self.objective.pruned:
            return {}
        node = {
            "_target_": "regente.sweeps.report_trial.ReportTrial",
            "_recursive_": False,
            "storage": self.storage,
            "study": self.name,
            "trial": self.study.trial_id(number),
            "metric": self.objective.metrics[0],
            "pruner": self.settings["pruner"],
        }
        return {TRIAL: json.dumps(node)}

    def tell(self, trial: TrialSpec, outcome: TrialResult) -> None:
        """Store the result of a trial; the next session repeats one that was interrupted.

        Raises:
            ConfigError: when a finished job has no such metric.
        """
        self.running.discard(trial.number)
        if outcome.code in INTERRUPTED:
            self.study.interrupted(trial.number)
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
    size = math.prod(len(each.values or ()) for each in found.drawn.values())
    return min(settings["n_trials"] or size, size)


def _function(path: str | None, config: dict[str, Any]) -> Any:
    """The user's own function, which Hydra's Optuna plugin calls with the config and the trial."""
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        what = f"no such function ({error}); give module.function, of a module in this folder or installed"
        raise ConfigError([Problem(f"hydra.sweeper.custom_search_space={path}", what)]) from error
    return lambda trial: function(OmegaConf.create(config), trial)
