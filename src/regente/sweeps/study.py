"""Optuna's study of a search: asked for parameters, told what became of them, and never at a loss after a kill."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BruteForceSampler, GridSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from regente.errors import ConfigError, Problem
from regente.sweeps.distributions import Choice, Distribution, Value
from regente.sweeps.trial_storage import open_storage

SWEEP, DIED, AGAIN = "regente.sweep", "regente.died", "regente.again"  # attributes of a trial
DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Study:
    """The trials of a search.

    `sweep` marks those that are this sweep's: a storage may hold trials that other drivers run at the same time.
    `sampler` and `pruner` are `{_target_: class, **arguments}`; `first` are parameters to try before any are drawn.
    """

    def __init__(
        self,
        name: str,
        storage: str,
        directions: Sequence[str],
        drawn: dict[str, Distribution],
        sweep: str,
        *,
        sampler: dict[str, Any],
        pruner: dict[str, Any],
        first: Sequence[dict[str, Value]] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.drawn = sweep, drawn
        self.distributions = {key: distribution(each) for key, each in drawn.items()}
        with quiet():
            self.study = optuna.create_study(
                storage=open_storage(storage),
                study_name=name,
                directions=[StudyDirection[each.upper()] for each in directions],
                pruner=make(pruner),
                load_if_exists=True,
            )
            if [each.name.lower() for each in self.study.directions] != list(directions):
                what = f"the study {name} has other directions; give another hydra.sweeper.study_name"
                raise ConfigError([Problem(f"hydra.sweeper.direction={list(directions)}", what)])
            self.study.sampler = self._sampler(dict(sampler))
            for params in first:
                self.study.enqueue_trial(params, {SWEEP: sweep}, skip_if_exists=True)
            self.ask_again(lambda trial: trial.user_attrs.get(SWEEP) == sweep)

    def _sampler(self, node: dict[str, Any]) -> optuna.samplers.BaseSampler:
        if node.get("seed") is not None:
            # else a later session would draw what an earlier one has drawn
            node["seed"] += len(self.trials())
        if node["_target_"].endswith("GridSampler"):
            node["search_space"] = {key: each.listed for key, each in self.drawn.items()}
        return make(node)  # type: ignore[no-any-return]

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states, or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def counts(self) -> tuple[int, int]:
        """How many trials are over, and how many of them failed; one that died with its driver is not over."""
        over = [trial for trial in self.trials(*DONE) if DIED not in trial.user_attrs]
        return len(over), sum(trial.state == TrialState.FAIL for trial in over)

    def ask(self, function: Any = None) -> Trial:
        """A new trial, with its parameters drawn; `function` may suggest more.

        Raises:
            ConfigError: when what is drawn from does not fit the trials in the storage.
        """
        with quiet():
            try:
                trial = self.study.ask(self.distributions)
            except ValueError as error:
                what = f"does not fit the study's earlier trials ({error}); give another study_name"
                raise ConfigError([Problem("hydra.sweeper.params", what)]) from error
            trial.set_user_attr(SWEEP, self.sweep)
            if function is not None:
                function(trial)
        return trial

    def tell(self, number: int, values: Sequence[float] | None, *, pruned: bool = False) -> None:
        """What a trial came to; without values it failed, or was pruned."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL if values is None else TrialState.COMPLETE
        # at the end of a grid its sampler wants to stop a loop that is not there; the trial is stored all the same
        exhaustive = isinstance(self.study.sampler, GridSampler | BruteForceSampler)
        with quiet(), suppress(*[RuntimeError] * exhaustive):
            self.study.tell(number, values, state, skip_if_finished=True)

    def died(self, number: int) -> None:
        """A trial was stopped before its end through no fault of its own: a later session asks it again."""
        self.ask_again(lambda trial: trial.number == number)

    def ask_again(self, mine: Any) -> None:
        """Tell running trials as failed, and put their parameters in line; a kill between the steps loses none."""
        for trial in self.trials(TrialState.RUNNING):
            if mine(trial):
                self.study._storage.set_trial_user_attr(trial._trial_id, DIED, True)
                self.tell(trial.number, None)
        trials = self.trials()
        succeeded = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in trials:
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            if params and DIED in trial.user_attrs and trial.number not in succeeded:
                self.study.enqueue_trial(params, {AGAIN: trial.number, SWEEP: trial.user_attrs.get(SWEEP)})


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's remarks on what is experimental or sampled independently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"optuna(\.|$)")
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield


def distribution(drawn: Distribution) -> BaseDistribution:
    """The same in Optuna's terms."""
    if isinstance(drawn, Choice):
        return CategoricalDistribution(drawn.values)
    if drawn.whole:
        return IntDistribution(int(drawn.low), int(drawn.high), drawn.log, int(drawn.step or 1))
    return FloatDistribution(drawn.low, drawn.high, drawn.log, drawn.step)


def make(node: dict[str, Any]) -> Any:
    """The sampler or pruner of a node."""
    module, _, name = node["_target_"].rpartition(".")
    return getattr(import_module(module), name)(**{k: v for k, v in node.items() if k != "_target_"})
