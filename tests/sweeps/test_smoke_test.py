"""Before many jobs: a few real batches of each kind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended
from tests.training.test_fit import jobs

TASK = """
from regente.tasks.classifier import Classifier
class Own(Classifier):
    def measures(self, means):
        return {"quality": means["acc"]}
"""
LINE = "monitor.metric=val/qality: never logged; did you mean val/quality? logged: train/loss, val/quality"
FAST = ["digits_mlp", "-m", "seed=range(4)", "trainer.max_epochs=1", "data.batch_size=256", "tracking=none"]


def test_a_metric_that_the_users_own_task_never_logs_is_reported_before_the_first_job(
    regente: Callable[..., Ended], project: Path
) -> None:
    (project / "own_task.py").write_text(TASK)
    ended = regente("train", *FAST, "task._target_=own_task.Own", "monitor.metric=val/qality")
    assert ended.code == 2, ended.out
    assert ended.lines == [LINE]
    assert jobs(project) == []
    ended = regente("train", *FAST, "task._target_=own_task.Own", "monitor.metric=val/quality")
    assert ended.code == 0, ended.err
    assert "tried a few batches: about" in ended.out
    assert len(jobs(project)) == 4


@pytest.mark.parametrize(
    "words", [["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=2"], ["trainer=debug"]]
)
def test_a_smoke_test_validates_even_if_the_jobs_validate_later_or_stop_before(
    words: list[str], regente: Callable[..., Ended], project: Path
) -> None:
    ended = regente("train", *FAST, *words)
    assert ended.code == 0, ended.err
    assert "4 of 4 jobs done" in ended.out
