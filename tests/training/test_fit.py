"""The real program, in a folder of its own, and what it leaves."""

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import Ended

Run = Callable[..., Ended]
FAST = ["digits_mlp", "trainer.max_epochs=2", "data.batch_size=256", "tracking.log_model=none"]


def jobs(project: Path) -> list[Path]:
    """The directories of jobs, those of sweeps left out."""
    found = sorted(path.parent for path in (project / "runs").rglob("job.json"))
    return [path for path in found if not path.name.startswith("sweep-")]


def query(project: Path, sql: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(project / "mlflow.db") as database:
        return database.execute(sql).fetchall()


@pytest.mark.usefixtures("store")
def test_a_run_leaves_a_job_directory_and_an_mlflow_run(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "optimizer.lr=3e-3")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", job.name)
    assert job.parent == project / "runs" / "digits_mlp"
    config = yaml.safe_load((job / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 3e-3
    assert config["model"]["num_classes"] == "${data.num_classes}"
    facts = json.loads((job / "job.json").read_text())
    assert facts["overrides"] == [*FAST[1:], "optimizer.lr=3e-3"]
    assert {path.name for path in job.glob(".*")} <= {".shipper.lock"}
    assert facts["command"][:2] == ["regente", "train"]
    result = json.loads((job / "result.json").read_text())

    assert query(project, "select status, name from runs") == [
        ("FINISHED", "max_epochs=2 batch_size=256 lr=3e-3")
    ]
    params = dict(query(project, "select key, value from params"))
    assert params["optimizer.lr"] == "0.003"
    assert params["model"] == "mlp"
    assert params["model.widths"] == "[128, 128]"
    metrics = dict(query(project, "select key, value from latest_metrics"))
    assert metrics["test/acc"] == pytest.approx(result["metrics"]["test/acc"])
    assert {"train/loss", "val/loss", "val/acc", "test/loss"} <= set(metrics)
    assert "epoch" not in metrics
    tags = dict(query(project, "select key, value from tags"))
    assert tags["regente.job"] == str(job)
    assert tags["regente.best_checkpoint"] == result["best_checkpoint"]
    (artifact,) = (project / "mlartifacts").rglob("config.yaml")
    assert artifact.read_text() == (job / "config.yaml").read_text()


@pytest.mark.usefixtures("store")
def test_output_that_is_no_terminal_is_a_few_plain_lines(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST)
    lines = ended.out.splitlines()
    assert lines[0].startswith("digits_mlp")
    assert "118,282 parameters; cpu, 32-true" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["best", "val", "test", "time", "weights", "job", "run"]
    assert "\x1b" not in ended.out
    assert ended.err == ""
    assert str(jobs(project)[0].relative_to(project)) in ended.out


def test_the_checkpoint_is_plain_and_tells_how_good_it_is(regente: Run, project: Path) -> None:
    regente("train", *FAST, "tracking=none")
    result = json.loads((jobs(project)[0] / "result.json").read_text())
    content = torch.load(result["best_checkpoint"], weights_only=True)
    assert content["epoch"] == result["best_epoch"]
    assert content["metrics"]["val/acc"] == result["metrics"]["val/acc"]
    assert Path(result["best_checkpoint"]).parent == jobs(project)[0] / "checkpoints"


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(regente: Run, project: Path) -> None:
    for seed in (1, 1, 2):
        assert regente("train", *FAST, "tracking=none", f"seed={seed}").code == 0
    a, b, other = (
        json.loads((job / "result.json").read_text())["metrics"] for job in sorted(jobs(project), key=_made)
    )
    assert a == b
    assert a != other


def _made(job: Path) -> float:
    return (job / "config.yaml").stat().st_mtime


def test_tracking_none_leaves_no_store(regente: Run, project: Path) -> None:
    assert regente("train", *FAST, "tracking=none").code == 0
    assert not (project / "mlflow.db").exists()
    assert not (project / "mlartifacts").exists()


def test_without_callbacks_the_last_weights_are_tested(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "callbacks=none", "tracking=none")
    assert ended.code == 0, ended.err
    assert "not kept" in ended.out
    assert not list(project.rglob("*.ckpt"))


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "plateau"])
def test_every_scheduler_trains(scheduler: str, regente: Run) -> None:
    ended = regente("train", *FAST, "tracking=none", f"scheduler={scheduler}")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_optimizer_trains(optimizer: str, regente: Run) -> None:
    assert regente("train", *FAST, "tracking=none", f"optimizer={optimizer}").code == 0


def test_half_precision_on_a_cpu_trains_in_bfloat16_and_says_so(regente: Run) -> None:
    ended = regente("train", *FAST, "tracking=none", "trainer=cpu", "trainer.precision=16")
    assert ended.code == 0, ended.err
    assert "bf16-mixed" in ended.out
    assert "precision=16 on a CPU: trained in bfloat16" in ended.out


def test_the_default_experiment_learns_the_digits(regente: Run, project: Path) -> None:
    ended = regente("train", "tracking=none")
    assert ended.code == 0, ended.err
    result = json.loads((jobs(project)[0] / "result.json").read_text())
    assert result["metrics"]["test/acc"] > 0.94
    assert "93,322 parameters" in ended.out


OWN_MODEL = """
from torch import nn
class Own(nn.Module):
    def __init__(self, num_classes: int, wide: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, wide), nn.ReLU(), nn.Linear(wide, num_classes))
    def forward(self, x):
        {line}
        return self.layers(x)
"""


def own_project(project: Path, line: str = "pass") -> None:
    """A model of the user's own: one class, one YAML file, and an experiment that chooses it."""
    (project / "conf/model").mkdir(parents=True)
    (project / "experiments").mkdir()
    (project / "own_models.py").write_text(OWN_MODEL.format(line=line))
    (project / "conf/model/own.yaml").write_text(
        "# my own\n_target_: own_models.Own\nnum_classes: ${data.num_classes}\n"
    )
    (project / "experiments/mine.yaml").write_text(
        "# mine\ndefaults:\n  - /train\n  - override /model: own\n  - _self_\ntrainer:\n  max_epochs: 1\n"
    )


def test_a_users_own_model_and_experiment_need_one_class_and_one_file(regente: Run, project: Path) -> None:
    own_project(project)
    ended = regente("train", "mine", "model.wide=16", "tracking=none")
    assert ended.code == 0, ended.err
    assert "Own on Digits" in ended.out
    assert (project / "runs/mine").is_dir()
    assert "mine" in regente("list").out
    assert "did you mean model.wide?" in regente("check", "mine", "model.wid=3").err


LAZY_MODEL = """
from torch import nn
class Lazy(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))
"""


def test_layers_that_take_their_shape_from_the_data_are_given_it(regente: Run, project: Path) -> None:
    own_project(project)
    (project / "own_models.py").write_text(LAZY_MODEL)
    ended = regente("train", "mine", "model._target_=own_models.Lazy", "tracking=none")
    assert ended.code == 0, ended.err
    assert "7,850 parameters" in ended.out


def test_output_that_nobody_can_take_does_not_end_a_run(project: Path) -> None:
    command = f"exec {sys.executable} -m regente train digits_mlp trainer=debug tracking=none >/dev/full"
    assert subprocess.run(command, shell=True, cwd=project, check=False, timeout=120).returncode == 0
    closed = f"{sys.executable} -m regente list >&-"
    assert subprocess.run(closed, shell=True, cwd=project, check=False, timeout=120).returncode == 0
    assert (jobs(project)[0] / "result.json").is_file()


@pytest.mark.usefixtures("store")
def test_an_exception_in_the_users_code_names_its_line_and_leaves_the_traceback(
    regente: Run, project: Path
) -> None:
    own_project(project, line="raise RuntimeError('boom')")
    ended = regente("train", "mine", "tracking.log_model=none")
    assert ended.code == 1
    line = OWN_MODEL.splitlines().index("        {line}") + 1
    assert ended.err.splitlines() == [f"{project / 'own_models.py'}:{line}: RuntimeError: boom"]
    assert query(project, "select status from runs") == [("FAILED",)]
    assert "RuntimeError: boom" in (jobs(project)[0] / "traceback.txt").read_text()
    assert list((project / "mlartifacts").rglob("traceback.txt"))
    assert "Traceback" in regente("train", "mine", "--debug", "tracking=none").err


@pytest.mark.usefixtures("store")
def test_a_loss_that_is_not_a_number_ends_the_run(regente: Run, project: Path) -> None:
    ended = regente(
        "train",
        "digits_mlp",
        "optimizer=sgd",
        "optimizer.lr=1e30",
        "trainer.max_epochs=3",
        "tracking.log_model=none",
    )
    assert ended.code == 7
    assert "train/loss is nan" in ended.err
    assert "optimizer.lr" in ended.err
    assert query(project, "select status from runs") == [("FAILED",)]


def wait_for_training(project: Path, others: Collection[Path] = ()) -> Path:
    """The directory of the job that is not among the others, once its run is in MLflow and has metrics."""

    def new() -> list[Path]:
        return [job for job in jobs(project) if job not in others]

    until(lambda: any('"train/loss"' in (job / "journal.jsonl").read_text() for job in new()))
    (job,) = new()
    # the shipper gives way to everything else, here also to the tests beside this one
    until(lambda: "run_id" in json.loads((job / "recorded.json").read_text()), 240)
    return job


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (FileNotFoundError, sqlite3.OperationalError):  # not yet there
            pass
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.alone
def test_eight_processes_may_start_at_once_on_a_store_that_does_not_exist(
    start: Callable[..., ForkServerProcess], project: Path
) -> None:
    words = ["train", "digits_mlp", "trainer=debug", "tracking.log_model=none"]
    many = [start(*words, f"seed={seed}", cold=seed < 2) for seed in range(8)]
    for process in many:
        process.join(200)
    assert [process.exitcode for process in many] == [0] * 8
    finished = "select status, count(*) from runs group by status"
    until(lambda: query(project, finished) == [("FINISHED", 8)], 120)
    assert query(project, "select count(*) from experiments where name = 'digits_mlp'") == [(1,)]
