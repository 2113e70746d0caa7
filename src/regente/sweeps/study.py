"""Optuna's study of a search: `ask` for parameters, `tell` their results; after a kill no trial is lost."""

import warnings
from collections.abc import Callable, Iterator, Sequence
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
from regente.sweeps.optuna_internals import set_user_attribute, trial_id
from regente.sweeps.trial_storage import open_storage

# User attributes of a trial: the sweep it is of, the parameters it was enqueued with, whether it was interrupted, and
# the number of the interrupted trial that it repeats
SWEEP, PARAMS, INTERRUPTED, REPEATS = (
    "regente.sweep",
    "regente.params",
    "regente.interrupted",
    "regente.repeats",
)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Study:
    """The trials of a search.

    `sweep` marks the trials of this sweep: a storage may hold trials that other drivers run at the same time.
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
        self.name, self.sweep, self.drawn = name, sweep, drawn
        self.storage = open_storage(storage)
        self.distributions = {key: distribution(each) for key, each in drawn.items()}
        with quiet():
            self.study = optuna.create_study(
                storage=self.storage,
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
                self.study.enqueue_trial(params, {SWEEP: sweep, PARAMS: params}, skip_if_exists=True)
            self.repeat_interrupted(lambda trial: trial.user_attrs.get(SWEEP) == sweep)

    def _sampler(self, node: dict[str, Any]) -> optuna.samplers.BaseSampler:
        if node.get("seed") is not None:
            # so that a later session does not repeat the draws of an earlier one
            node["seed"] += len(self.trials())
        if node["_target_"].endswith("GridSampler"):
            node["search_space"] = {key: each.values for key, each in self.drawn.items()}
        return make(node)  # type: ignore[no-any-return]

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states, or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def counts(self) -> tuple[int, int]:
        """How many trials are finished, and how many of them failed; one that was interrupted is not finished."""
        finished = [trial for trial in self.trials(*FINISHED) if INTERRUPTED not in trial.user_attrs]
        return len(finished), sum(trial.state == TrialState.FAIL for trial in finished)

    def ask(self, function: Any = None) -> Trial:
        """A new trial with its parameters; `function` may suggest more of them.

        Raises:
            ConfigError: when the distributions do not fit the trials in the storage.
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
        """Store the result of a trial; without values it failed, or was pruned."""
        state = TrialState.PRUNED if pruned else TrialState.FAIL if values is None else TrialState.COMPLETE
        # at the end of a grid its sampler stops `optimize`, which does not run here; the trial is stored before that
        exhaustive = isinstance(self.study.sampler, GridSampler | BruteForceSampler)
        with quiet(), suppress(*[RuntimeError] * exhaustive):
            self.study.tell(number, values, state, skip_if_finished=True)

    def trial_id(self, number: int) -> int:
        """The id of a trial in the storage."""
        return trial_id(self.storage, self.name, number)

    def interrupted(self, number: int) -> None:
        """A trial was stopped before its end, with its sweep: a later session repeats it."""
        self.repeat_interrupted(lambda trial: trial.number == number)

    def repeat_interrupted(self, selected: Callable[[FrozenTrial], bool]) -> None:
        """End the selected running trials and enqueue their parameters; a kill between the steps loses none."""
        for trial in self.trials(TrialState.RUNNING):
            if selected(trial):
                set_user_attribute(self.storage, self.trial_id(trial.number), INTERRUPTED, True)
                self.tell(trial.number, None)
        trials = self.trials()
        repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
        for trial in trials:
            params = {**trial.user_attrs.get(PARAMS, {}), **trial.params}
            if params and INTERRUPTED in trial.user_attrs and trial.number not in repeated:
                attributes = {REPEATS: trial.number, SWEEP: trial.user_attrs.get(SWEEP), PARAMS: params}
                self.study.enqueue_trial(params, attributes)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's warnings about what is experimental or sampled independently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"optuna(\.|$)")
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield


def distribution(drawn: Distribution) -> BaseDistribution:
    """The distribution as Optuna's class."""
    if isinstance(drawn, Choice):
        return CategoricalDistribution(drawn.choices)
    if drawn.whole:
        return IntDistribution(int(drawn.low), int(drawn.high), drawn.log, int(drawn.step or 1))
    return FloatDistribution(drawn.low, drawn.high, drawn.log, drawn.step)


def make(node: dict[str, Any]) -> Any:
    """The sampler or pruner of a node."""
    module, _, name = node["_target_"].rpartition(".")
    return getattr(import_module(module), name)(**{k: v for k, v in node.items() if k != "_target_"})
