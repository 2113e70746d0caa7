"""The Optuna source: what it draws, counts, remembers after a kill, and refuses."""

import os
import re
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.errors import ConfigError
from regente.jobs.job import TRIAL
from regente.sweeps.protocols import TrialResult, TrialSpec
from regente.sweeps.search import Search

pytestmark = pytest.mark.slow  # not in `make quick`

LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def search(folder: Path, *words: str, trials_file: str | None = None) -> Search:
    """A search over the digits, as the driver makes it."""
    own = [word for word in words if word.startswith(("hydra", "+hydra"))]
    composed = compose("digits_cnn", ["hydra/sweeper=optuna", *own])
    node: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
    settings = {key: value for key, value in node.items() if key != "_target_"}
    folder.mkdir(parents=True, exist_ok=True)
    overrides = [word for word in words if word not in own]
    return Search(folder, overrides, resolve(composed.node), trials_file=trials_file, **settings)


def rate(trial: TrialSpec) -> float:
    """The learning rate of a trial."""
    return float(next(word for word in trial.overrides if word.startswith("optimizer.lr=")).partition("=")[2])


def done(value: float, **more: float) -> TrialResult:
    return TrialResult(0, {"val/acc": value, **more})


def finish(found: Search) -> list[TrialSpec]:
    trials = []
    while (trial := found.ask()) is not None:
        trials.append(trial)
        found.tell(trial, done(rate(trial)))
    return trials


def _run_until(folder: str, stop_at: int, log: str) -> None:
    """A session of a search that is killed in the middle of the trial with number `stop_at`."""
    found = search(Path(folder), LR, "hydra.sweeper.n_trials=30")
    with Path(log).open("a") as file:
        while (trial := found.ask()) is not None:
            if trial.number == stop_at:
                other = found.ask()  # two at a time
                assert other is not None
                file.write(f"{rate(trial)}\n{rate(other)}\n")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            found.tell(trial, done(rate(trial)))


def test_thirty_trials_killed_twice_are_thirty_and_what_ran_is_asked_again(
    project: Path, warm: ForkServerContext
) -> None:
    folder, log = project / "runs/digits_cnn/sweep-1", project / "log"
    for stop_at in (4, 17, -1):
        process = warm.Process(target=_run_until, args=(str(folder), stop_at, str(log)))
        process.start()
        process.join(100)
        assert process.exitcode == (0 if stop_at < 0 else -signal.SIGKILL)
    found = search(folder, LR, "hydra.sweeper.n_trials=30")
    assert found.study.counts() == (30, 0)
    assert found.ask() is None
    complete = [trial.params["optimizer.lr"] for trial in found.study.trials() if trial.values]
    assert len(complete) == len(set(complete)) == 30
    killed = [float(line) for line in log.read_text().split()]
    assert len(killed) == 4
    assert set(killed) <= set(complete)


def test_a_torn_last_line_of_the_journal_costs_nothing(project: Path) -> None:
    folder = project / "runs/digits_cnn/sweep-1"
    first = search(folder, LR, "hydra.sweeper.n_trials=3")
    for _ in range(2):
        trial = first.ask()
        assert trial is not None
        first.tell(trial, done(rate(trial)))
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"op_code":5,"worker_id":"torn')
    assert len(finish(search(folder, LR, "hydra.sweeper.n_trials=3"))) == 1


def test_a_fixed_seed_draws_the_same_anew_and_something_else_after_a_resume(project: Path) -> None:
    seeded = (LR, "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=7")
    rates = [[rate(p) for p in finish(search(project / f"runs/e/{name}", *seeded))] for name in ("a", "b")]
    assert rates[0] == rates[1]
    more = finish(
        search(project / "runs/e/a", LR, "hydra.sweeper.n_trials=8", "hydra.sweeper.sampler.seed=7")
    )
    assert len(more) == 4
    assert not {rate(trial) for trial in more} & set(rates[0])


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "nsgaii", "random", "qmc"])
def test_each_sampler_finds_better_and_better_or_at_least_something(project: Path, sampler: str) -> None:
    found = search(
        project / "runs/e/a", LR, "model.dropout=interval(0,0.5)",
        f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=14", "hydra.sweeper.sampler.seed=1",
    )  # fmt: skip
    trials = finish(found)
    assert len(trials) == found.total == 14
    assert found.study.study.best_value == max(rate(trial) for trial in trials)


def test_a_grid_is_done_whole_each_point_once_also_after_a_resume(project: Path) -> None:
    words = ("model=cnn,mlp", "optimizer.lr=0.1,0.01,0.001", "hydra/sweeper/sampler=grid")
    first = search(project / "runs/e/a", *words)
    assert first.total == 6
    trials = [first.ask(), first.ask()]
    first.tell(trials[0], done(1.0))  # type: ignore[arg-type]
    rest = finish(search(project / "runs/e/a", *words))
    combinations = [tuple(trial.overrides) for trial in [trials[0], *rest] if trial is not None]
    assert len(combinations) == len(set(combinations)) == 6


def test_failed_trials_count_and_end_the_search_above_the_rate_and_stopped_ones_are_asked_again(
    project: Path,
) -> None:
    found = search(
        project / "runs/e/a", LR, "hydra.sweeper.n_trials=10", "hydra.sweeper.max_failure_rate=0.5"
    )
    first, second, third = found.ask(), found.ask(), found.ask()
    assert first and second and third
    found.tell(first, TrialResult(143))
    again = found.ask()
    assert again and rate(again) == rate(first)
    found.tell(second, TrialResult(7))
    found.tell(third, TrialResult(1))
    assert found.study.counts() == (2, 2)
    assert found.ask() is None
    assert "2 of 2 trials failed" in found.end_reason


def test_the_rows_of_a_table_are_tried_before_anything_is_drawn_once_also_after_a_resume(
    project: Path,
) -> None:
    (project / "p.csv").write_text("optimizer.lr,model\n0.01,mlp\n0.02,\n")
    words = (LR, "model=cnn,mlp", "hydra.sweeper.n_trials=4")
    first = search(project / "runs/e/a", *words, trials_file="p.csv")
    trials = [first.ask(), first.ask()]
    assert [rate(trial) for trial in trials if trial] == [0.01, 0.02]
    assert trials[0] and trials[0].overrides[-1] == "model=mlp"
    for trial in trials:
        first.tell(trial, done(0.5))  # type: ignore[arg-type]
    rest = finish(search(project / "runs/e/a", *words, trials_file="p.csv"))
    assert len(rest) == 2
    assert not {rate(trial) for trial in rest} & {0.01, 0.02}
    (project / "p.csv").write_text("optimizer.lr,model,seed\n0.5,mpl,1\n")
    with pytest.raises(ConfigError) as raised:
        search(project / "runs/e/b", *words, trials_file="p.csv")
    assert [problem.where for problem in raised.value.problems] == [
        "sweep.trials_file: optimizer.lr=0.5", "sweep.trials_file: model=mpl", "sweep.trials_file",
    ]  # fmt: skip


def test_jobs_at_a_time_are_limited_by_n_jobs(project: Path) -> None:
    found = search(project / "runs/e/a", LR, "hydra.sweeper.n_jobs=2")
    assert found.ask() and found.ask()
    assert found.ask() is None


def test_several_objectives_have_a_front_and_figures_of_it(project: Path) -> None:
    found = search(
        project / "runs/e/a", LR, "hydra.sweeper.metric=[val/acc,test/loss]",
        "hydra.sweeper.direction=[maximize,minimize]", "hydra.sweeper.n_trials=6",
    )  # fmt: skip
    while (trial := found.ask()) is not None:
        found.tell(trial, done(rate(trial), **{"test/loss": rate(trial) ** 2}))
    assert len(found.study.study.best_trials) == 6
    assert set(found.figures()) == {"pareto_front", "importance_val_acc", "importance_test_loss"}


def test_the_figures_of_a_search_are_drawn_and_a_search_of_one_trial_has_none(project: Path) -> None:
    found = search(project / "runs/e/a", LR, "model.dropout=interval(0,0.5)", "hydra.sweeper.n_trials=5")
    trial = found.ask()
    assert trial is not None
    found.tell(trial, done(0.5))
    assert found.figures() == {}
    finish(found)
    figures = found.figures()
    assert set(figures) == {"history", "parallel_coordinates", "importance"}
    for name, figure in figures.items():
        figure.savefig(project / f"{name}.png")


def test_a_trial_reports_only_where_a_pruner_listens(project: Path) -> None:
    without = search(project / "runs/e/a", LR).ask()
    listening = search(project / "runs/e/b", LR, "hydra/sweeper/pruner=median").ask()
    assert without and listening
    assert TRIAL not in without.env
    assert '"metric": "val/acc"' in listening.env[TRIAL]


def test_the_users_own_function_suggests_what_depends_on_what(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "own_space.py").write_text(
        "def suggest(config, trial):\n"
        "    if trial.params['model'] == 'mlp' and config.trainer.max_epochs > 0:\n"
        "        trial.suggest_int('model.hidden', 8, 16)\n"
    )
    monkeypatch.syspath_prepend(project)
    found = search(
        project / "runs/e/a", "model=cnn,mlp", "hydra.sweeper.custom_search_space=own_space.suggest",
        "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0",
    )  # fmt: skip
    trials = [trial for _ in range(8) if (trial := found.ask())]
    assert {tuple(word.partition("=")[0] for word in trial.overrides) for trial in trials} == {
        ("model",),
        ("model", "model.hidden"),
    }


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        ([LR, "hydra.sweeper.sampler._target_=optuna.samplers.TPESamplr"], "did you mean TPESampler?"),
        ([LR, "+hydra.sweeper.sampler.n_startup=3"], "hydra.sweeper.sampler.n_startup: no such setting"),
        ([LR, "hydra.sweeper.pruner._target_=optuna.pruners.MedianPrunr"], "did you mean MedianPruner?"),
        ([LR, "hydra.sweeper.sampler._target_=optuna.pruners.MedianPruner"], "not a sampler of Optuna's"),
        ([LR, "+hydra.sweeper.n_trial=3"], "did you mean n_trials?"),
        ([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: needs a whole number of at least 1"),
        ([LR, "hydra.sweeper.metric=val/accuracy", "hydra.sweeper.direction=maximize"], "val/acc"),
        ([LR, "hydra.sweeper.metric=[val/acc,val/loss]"], "needs a direction for each metric"),
        ([LR, "hydra.sweeper.direction=max_imize"], "must be minimize or maximize"),
        ([LR, "hydra/sweeper/sampler=grid"], "a grid needs values that can be counted"),
        (["seed=3"], "nothing to search"),
        (
            [LR, "hydra.sweeper.metric=[val/acc,val/loss]", "hydra.sweeper.direction=[maximize,minimize]",
             "hydra/sweeper/pruner=asha"], "prunes with one objective only",
        ),
        (
            [LR, "hydra.sweeper.metric=test/acc", "hydra.sweeper.direction=maximize",
             "hydra/sweeper/pruner=asha"], "a metric of the validation",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_search_is_said_before_it_starts(
    project: Path, words: list[str], telling: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(telling)):
        search(project / "runs/e/a", *words)
    assert not list((project / "runs/e/a").iterdir())


def test_an_objective_that_no_job_has_ends_the_search_after_the_first(project: Path) -> None:
    found = search(project / "runs/e/a", LR)
    trial = found.ask()
    assert trial is not None
    with pytest.raises(ConfigError, match="has no such metric; it has: val/loss"):
        found.tell(trial, TrialResult(0, {"val/loss": 1.0}))


@pytest.mark.parametrize(
    "url",
    ["mysql://me:pa55w0rd@127.0.0.1:1/db", "sqlite:////nowhere/study.db", "nonsense", "redis://127.0.0.1:1"],
)
def test_a_storage_that_does_not_open_is_told_in_a_line_without_its_password(project: Path, url: str) -> None:
    found = search(project / "runs/e/a", LR, f"hydra.sweeper.storage='{url}'")
    with pytest.raises(
        ConfigError, match=r"hydra.sweeper.storage=.*: cannot be opened \(.*\); give a URL"
    ) as raised:
        found.ask()
    assert "\n" not in str(raised.value)
    assert "pa55w0rd" not in str(raised.value)
