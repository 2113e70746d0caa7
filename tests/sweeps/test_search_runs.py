"""Searches as one types them."""

import os
import signal
from pathlib import Path

import pytest

from tests.sweeps.test_search import LR
from tests.sweeps.test_sweep import FAST, Run, Start, sweep_of, until
from tests.sweeps.test_sweep import net as net  # a fixture

WORDS = ["train", *FAST, "-m", "hydra/sweeper=optuna", LR]


@pytest.mark.slow
def test_a_search_killed_twice_ends_with_its_trials_none_of_them_done_twice(
    start: Start, regente: Run, project: Path
) -> None:
    from optuna import load_study

    from regente.sweeps.trial_storage import open_storage

    words = [*WORDS, "hydra.sweeper.n_trials=12", "hydra.launcher.jobs=2"]
    for done in (3, 7):
        driver = start(*words)
        until(lambda done=done: len(list(project.glob("runs/*/sweep-*/*/result.json"))) >= done, 100)  # type: ignore[misc]
        assert driver.pid is not None
        os.kill(driver.pid, signal.SIGKILL)
        driver.join()
    ended = regente(*words)
    assert ended.code == 0, ended.err
    folder = sweep_of(project)
    study = load_study(study_name="digits_mlp", storage=open_storage(f"journal:{folder / 'trials.jsonl'}"))
    complete = [trial.params["optimizer.lr"] for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(complete) == len(set(complete)) == 12
    assert len(list(folder.glob("*/result.json"))) == 12
    assert {path.stem for path in folder.glob("figures/*.png")} == {
        "history",
        "importance",
        "parallel_coordinates",
    }
    again = regente(*words)
    assert (again.code, "started" in again.out) == (0, False)


def test_a_search_is_checked_before_it_starts(regente: Run, project: Path) -> None:
    ended = regente("check", *FAST, "-m", "hydra/sweeper=optuna", LR, "model.dropout=interval(0, 2)")
    assert ended.code == 2
    assert ended.lines[0].startswith("model.dropout=2.0: needs a number >= 0 and < 1")
    ended = regente("check", *FAST, "-m", "hydra/sweeper=optuna", LR, "hydra/sweeper/sampler=grid")
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert "a grid needs values that can be counted" in ended.err
    ended = regente("check", *FAST, "-m", "hydra/sweeper=optuna", LR, "hydra.sweeper.n_trials=7")
    assert ended.code == 0, ended.err
    assert "a search of 7 jobs, its extremes checked, no problems" in ended.out
    assert not list(project.glob("runs/*"))


def test_a_config_of_hydras_own_plugin_carries_over(regente: Run, project: Path) -> None:
    (project / "experiments").mkdir()
    (project / "experiments/carried.yaml").write_text(
        """# A search as it was written for Hydra's plugin
defaults:
  - /digits_mlp
  - override /hydra/sweeper: optuna
  - override /hydra/sweeper/sampler: tpe
  - _self_
hydra:
  mode: MULTIRUN
  sweeper:
    _target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper
    storage: null
    study_name: null
    n_jobs: 1
    direction: maximize
    n_trials: 20
    max_failure_rate: 0.5
    sampler:
      _target_: optuna.samplers.TPESampler
      seed: 1234
      n_startup_trials: 10
    params:
      optimizer.lr: interval(0.0001, 0.1)
      data.batch_size: choice(32, 64, 128, 256)
"""
    )
    ended = regente("check", "carried")
    assert ended.code == 0, ended.err
    assert "a search of 20 jobs" in ended.out


def test_a_search_most_of_whose_trials_fail_ends_early_and_says_so(regente: Run, net: Path) -> None:
    failing = [
        "model=net",
        "model.ending=badly",
        "hydra.sweeper.max_failure_rate=0.4",
        "hydra.launcher.jobs=1",
    ]
    ended = regente(*WORDS, *failing)
    assert ended.code == 1
    assert "1 of 1 trials failed, hydra.sweeper.max_failure_rate=0.4" in ended.out


def test_a_trial_over_its_time_has_failed_and_is_not_asked_for_again(regente: Run, net: Path) -> None:
    words = [*WORDS[:-1], "model=net", "model.ending=choice(never)", "hydra.sweeper.n_trials=2"]
    ended = regente(*words, "hydra.launcher.max_minutes=0.03", "hydra.sweeper.max_failure_rate=1")
    assert ended.code == 1
    assert ended.out.count("hydra.launcher.max_minutes=0.03 were over") >= 1
    retried = regente("sweep", "retry")
    assert retried.code == 2
    assert "use regente sweep resume" in retried.err
