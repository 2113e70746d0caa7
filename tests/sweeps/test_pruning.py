"""Trials that report after each validation, and stop when a pruner gives them up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regente.jobs.job import TRIAL
from regente.sweeps.protocols import TrialResult
from tests.sweeps.test_search import LR, done, search

Run = Callable[..., Any]
MLP = ("train", "digits_mlp", "tracking=none", "trainer.accelerator=cpu")


def _job(project: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result and the journal of the only job."""
    (path,) = project.glob("runs/digits_mlp/*/result.json")
    lines = (path.parent / "journal.jsonl").read_text().splitlines()
    return json.loads(path.read_text()), [json.loads(line) for line in lines]


def _after_good_ones(folder: Path, epochs: int) -> Any:
    """A search with a median pruner in which five trials were better from the start than any can be."""
    found = search(folder, LR, "hydra/sweeper/pruner=median", "hydra.sweeper.n_trials=9")
    for _ in range(5):
        trial = found.ask()
        assert trial is not None
        number = json.loads(trial.env[TRIAL])["trial"]
        for validation in range(epochs):
            found.study.storage.set_trial_intermediate_value(number, validation, 1.0)
        found.tell(trial, done(1.0))
    return found


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_hopeless_trial_stops_after_its_first_validation_and_is_finished_and_pruned(
    regente: Run, project: Path, ranks: int
) -> None:
    found = _after_good_ones(project / "runs/e/a", 4)
    trial = found.ask()
    ended = regente(*MLP, "trainer.max_epochs=4", f"trainer.devices={ranks}", env=trial.env)
    assert ended.code == 0, ended.err
    result, journal = _job(project)
    assert result["pruned"] is True
    assert result["epochs"] == 1
    assert "val/acc" in result["metrics"] and "test/acc" not in result["metrics"]
    tags = {key: value for line in journal if line["kind"] == "tags" for key, value in line["values"].items()}
    assert tags["regente.pruned"] == "after validation 1"
    found.tell(trial, TrialResult(0, result["metrics"], pruned=True))
    trial = found.study.trials()[-1]
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values == {0: pytest.approx(result["metrics"]["val/acc"])}
    assert found.study.counts() == (6, 0)


def test_a_trial_that_nobody_gives_up_reports_each_validation_and_is_tested(
    regente: Run, project: Path
) -> None:
    found = search(project / "runs/e/a", LR, "hydra/sweeper/pruner=asha")
    trial = found.ask()
    assert trial is not None
    assert regente(*MLP, "trainer.max_epochs=3", env=trial.env).code == 0
    result, _ = _job(project)
    assert result["pruned"] is False
    assert "test/acc" in result["metrics"]
    reported = found.study.trials()[0].intermediate_values
    assert list(reported) == [0, 1, 2]
    assert max(reported.values()) == pytest.approx(result["metrics"]["val/acc"])


def test_a_storage_that_is_away_ends_the_reports_and_not_the_training(regente: Run, project: Path) -> None:
    trial = search(project / "runs/e/a", LR, "hydra/sweeper/pruner=asha").ask()
    assert trial is not None
    facts = {**json.loads(trial.env[TRIAL]), "storage": "sqlite:////nowhere/study.db"}
    assert regente(*MLP, "trainer.max_epochs=2", env={TRIAL: json.dumps(facts)}).code == 0
    result, journal = _job(project)
    assert result["epochs"] == 2
    assert any("regente.unreported" in line.get("values", {}) for line in journal)
