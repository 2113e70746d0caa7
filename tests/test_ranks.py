"""Several ranks of one job: real processes on gloo, real kills."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended
from tests.test_train import jobs, query

Run = Callable[..., Ended]
TWO = ["trainer=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
FAST = [
    "digits_mlp", *TWO, "trainer.max_epochs=2", "data.batch_size=128", "tracking.log_model=false",
]  # fmt: skip
FAILS = '''
import os, signal
from pytorch_lightning import Callback

class Fail(Callback):
    """Fails once, on one rank before one step of the first attempt."""

    def __init__(self, rank, step, how):
        self.rank, self.step, self.how = rank, step, how

    def on_train_batch_start(self, trainer, module, batch, index):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            if self.how == "raise":
                raise KeyError("boom")
            os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.mark.usefixtures("store")
def test_a_sweep_of_two_ranks_each_is_a_run_for_each_job_and_no_more(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "-m", "optimizer.lr=1e-3,1e-2")
    assert ended.code == 0, ended.err
    assert ended.out.count("cpu x 2") == 2
    assert ended.out.count("best epoch") == 2
    assert query(project, "select status, count(*) from runs group by status") == [("FINISHED", 3)]
    parents = query(
        project, "select value, count(*) from tags where key = 'mlflow.parentRunId' group by value"
    )
    assert [number for _, number in parents] == [2]
    assert len(jobs(project)) == 2
    assert {path.name for path in project.iterdir() if path.is_dir()} <= {"runs", "mlartifacts", "cache"}
    assert all((job / "logs" / "rank-1.log").is_file() for job in jobs(project))


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_the_rank_that_fails_says_why_and_nobody_else_speaks(regente: Run, project: Path) -> None:
    (project / "fails.py").write_text(FAILS)
    fail = "+callbacks.fail={_target_: fails.Fail, rank: 1, step: 3, how: raise}"
    ended = regente("train", *FAST, fail, cold=True)
    assert ended.code == 1
    line = FAILS.splitlines().index('                raise KeyError("boom")') + 1
    assert ended.err.splitlines() == [f"{project / 'fails.py'}:{line}: KeyError: 'boom'"]
    assert query(project, "select status from runs") == [("FAILED",)]
    (job,) = jobs(project)
    assert "KeyError: 'boom'" in (job / "traceback.txt").read_text()


def test_a_rank_that_is_killed_is_named(regente: Run, project: Path) -> None:
    (project / "fails.py").write_text(FAILS)
    fail = "+callbacks.fail={_target_: fails.Fail, rank: 1, step: 3, how: kill}"
    ended = regente("train", *FAST, fail, "tracking=none")
    assert ended.code == 1
    assert "rank 1 was killed by SIGKILL" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert '"status":"FAILED"' in (jobs(project)[0] / "journal.jsonl").read_text()
    assert json.loads((jobs(project)[0] / "logs" / "rank-0.json").read_text())["lost"]
