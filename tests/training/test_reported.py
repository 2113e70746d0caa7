"""What a run reports is what its checkpoint gives, whatever the callbacks, settings and names are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ended
from tests.training.test_fit import jobs, own_project, query

Run = Callable[..., Ended]
QUICK = ["digits_mlp", "trainer.max_epochs=2", "tracking=none"]


def result(project: Path) -> dict[str, Any]:
    (job,) = jobs(project)
    found: dict[str, Any] = json.loads((job / "result.json").read_text())
    return found


CASES = {
    "averaged weights": ["+callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging"],
    "weights alone": ["callbacks.checkpoint.save_weights_only=true"],
    "a limit of time": ["+trainer.max_time={hours: 1}"],
    "the training loss": ["monitor.metric=train/loss", "monitor.mode=min"],
    "no metric to judge by": ["callbacks.checkpoint.monitor=null"],
}


@pytest.mark.parametrize("case", CASES)
def test_the_test_is_of_the_weights_that_are_kept(case: str, regente: Run, project: Path) -> None:
    ended = regente("train", *QUICK, *CASES[case])
    assert ended.code == 0, ended.out + ended.err
    found = result(project)
    assert {"val/loss", "val/acc", "test/loss", "test/acc"} <= set(found["metrics"])
    assert ("train/loss" in found["metrics"]) == (case == "the training loss")
    evaluated = regente("evaluate", "latest")
    assert evaluated.code == 0, evaluated.err
    assert "equal to the bit" in evaluated.out, evaluated.out


def test_without_a_validation_the_last_weights_are_kept_and_tested(regente: Run, project: Path) -> None:
    ended = regente("train", *QUICK, "trainer.limit_val_batches=0")
    assert ended.code == 0, ended.out + ended.err
    found = result(project)
    assert Path(found["best_checkpoint"]).name == "last_weights.ckpt"
    assert set(found["metrics"]) == {"test/loss", "test/acc"}
    assert regente("evaluate", "latest").code == 0


def test_a_run_by_its_training_loss_can_be_the_best(regente: Run, project: Path) -> None:
    words = ["train", *QUICK, "monitor.metric=train/loss", "monitor.mode=min", "-m", "optimizer.lr=1e-2,1e-6"]
    ended = regente(*words)
    assert ended.code == 0, ended.err
    assert "best train/loss" in ended.out
    assert regente("evaluate", "best").code == 0


NAMES = """
from regente.tasks.classifier import Classifier

class Named(Classifier):
    def validation_step(self, batch, batch_idx):
        for name in ("/loss", "val//acc", "val/acc/", "val/../acc", "m" * 300):
            self.log(name, 0.5)
        return super().validation_step(batch, batch_idx)
"""


@pytest.mark.usefixtures("store")
def test_a_name_that_mlflow_refuses_is_recorded_under_another(regente: Run, project: Path) -> None:
    (project / "named.py").write_text(NAMES)
    ended = regente(
        "train", "digits_mlp", "trainer.max_epochs=1", "task._target_=named.Named", "tracking.log_model=none"
    )
    assert ended.code == 0, ended.out + ended.err
    assert query(project, "select status from runs") == [("FINISHED",)]
    keys = {key for (key,) in query(project, "select distinct key from metrics")}
    assert {"_/loss", "val/_/acc", "val/acc/_", "val/__/acc", "val/acc", "test/acc"} <= keys
    assert "all runs are complete" in regente("sync").out


@pytest.mark.usefixtures("store")
def test_a_value_that_the_store_refuses_costs_itself_alone(regente: Run, project: Path) -> None:
    own_project(project)
    (project / "twice.py").write_text(
        "from pytorch_lightning import Callback\n"
        "class Twice(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        trainer.logger.journal.write('params', values={'mine': 1, 'other1': 1})\n"
        "    def on_train_end(self, trainer, module):\n"
        "        trainer.logger.journal.write('params', values={'mine': 2, 'other2': 2})\n"
    )
    ended = regente("train", "mine", "+callbacks.twice._target_=twice.Twice", "tracking.log_model=none")
    assert ended.code == 0, ended.err
    assert "the store refused mine=2" in ended.out
    assert query(project, "select status from runs") == [("FINISHED",)]
    params = dict(query(project, "select key, value from params where key in ('mine', 'other1', 'other2')"))
    assert params == {"mine": "1", "other1": "1", "other2": "2"}


def test_what_no_part_takes_is_refused(regente: Run, project: Path) -> None:
    refused = regente("train", "digits_mlp", "scheduler.foo=3", "hydra.run.dir=x")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert refused.lines[0].startswith("hydra.run.dir=x: Regente makes the job directories")
    refused = regente("train", "digits_mlp", "scheduler.foo=3", "--debug")
    assert refused.code == 2
    assert "scheduler.foo: there is no scheduler to take it" in refused.err


def test_a_job_that_cannot_be_read_hides_no_other(regente: Run, project: Path) -> None:
    assert regente("train", "digits_mlp", "trainer=debug", "tracking=none").code == 0
    damaged = project / "runs/digits_mlp/29990101-000000-aaaaaa"
    damaged.mkdir()
    (damaged / "job.json").write_text("{")
    assert regente("evaluate", "latest").code == 0
    assert regente("evaluate", "digits_mlp:best").code == 0


def test_an_experiment_of_many_jobs_may_leave_a_swept_value_open(regente: Run, project: Path) -> None:
    (project / "experiments").mkdir()
    (project / "experiments/many.yaml").write_text(
        "# A test's\ndefaults: [/train, override /model: mlp, _self_]\noptimizer: {lr: '???'}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {optimizer.lr: '1e-3,1e-2'}}}\n"
    )
    ended = regente("check", "many")
    assert ended.code == 0, ended.err
    assert "2 jobs, no problems" in ended.out


def test_a_learning_rate_of_zero_can_be_raised(regente: Run, project: Path) -> None:
    words = ["digits_mlp", "optimizer.lr=0", "trainer.max_epochs=1", "tracking=none"]
    assert regente("train", *words).code == 0
    ended = regente(
        "resume", "latest", "trainer.max_epochs=2", "optimizer.lr=0.01", "--allow", "optimizer.lr"
    )
    assert ended.code == 0, ended.err
    assert result(project)["metrics"]["val/acc"] > 0.5


CONDITIONAL = """
def draw(config, trial):
    if trial.params["optimizer"] == "sgd":
        trial.suggest_float("optimizer.momentum", 0.1, 0.9)
"""


def test_trials_of_a_conditional_search_are_not_the_same_but_for_their_seed(
    regente: Run, project: Path
) -> None:
    (project / "space.py").write_text(CONDITIONAL)
    words = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.custom_search_space=space.draw",
    ]
    ended = regente("train", *QUICK, *words, "optimizer=choice(sgd)", "-m")
    assert ended.code == 0, ended.out + ended.err
    assert "over seeds" not in ended.out
    (table,) = project.rglob("jobs.csv")
    assert table.read_text().count("optimizer.momentum=") == 3
    refused = regente(
        "train", *QUICK, *words, "optimizer=choice(sgd)", "hydra.sweeper.direction=minimize", "-m"
    )
    assert refused.code == 2
    assert "monitor.mode=max" in refused.err


def test_a_group_may_be_null_where_there_may_be_none_of_it(regente: Run, project: Path) -> None:
    (project / "experiments").mkdir()
    (project / "experiments/bare.yaml").write_text(
        "# A test's\ndefaults: [/train, override /model: mlp, _self_]\nscheduler: null\ncallbacks: null\n"
    )
    ended = regente("train", "bare", "trainer.max_epochs=1", "tracking=none")
    assert ended.code == 0, ended.err
    assert "weights     not kept" in ended.out
