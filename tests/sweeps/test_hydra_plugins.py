"""What belongs to Hydra goes on working: its callbacks, and launchers that are plugins of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended
from tests.sweeps.test_sweep import FAST, sweep_of

Run = Callable[..., Ended]
CALLBACK = """
from hydra.experimental.callback import Callback

class Notes(Callback):
    def __init__(self, file):
        self.file = file

    def note(self, *words):
        with open(self.file, "a") as file:
            print(*words, file=file)

    def on_multirun_start(self, config, **kwargs):
        self.note("sweep", config.model._target_.rpartition(".")[2])

    def on_job_start(self, config, **kwargs):
        self.note("start", config.optimizer.lr, config.hydra.overrides.task[-1])

    def on_job_end(self, config, job_return, **kwargs):
        self.note("end", config.optimizer.lr, job_return.status.name, job_return.return_value > 0)

    def on_multirun_end(self, config, **kwargs):
        self.note("over")
"""
LAUNCHER = """
import cloudpickle
from hydra.core.config_store import ConfigStore
from hydra.core.utils import configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

class Elsewhere(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.config = hydra_context, config
        self.task = cloudpickle.dumps(task_function)  # as it travels to other processes

    def launch(self, job_overrides, initial_job_idx):
        setup_globals()
        answers = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            answers.append(run_job(
                hydra_context=self.context, task_function=cloudpickle.loads(self.task), config=config,
                job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
            ))
        return answers

ConfigStore.instance().store(group="hydra/launcher", name="elsewhere", node={"_target_": "hydra_plugins.elsewhere.Elsewhere"})
"""


def test_hydras_callbacks_hear_of_the_sweep_and_of_each_job(regente: Run, project: Path) -> None:
    (project / "notes.py").write_text(CALLBACK)
    callback = f"+hydra.callbacks.notes={{_target_: notes.Notes, file: {project}/notes.txt}}"
    ended = regente("train", *FAST, callback, "hydra.launcher.jobs=1", "-m", "optimizer.lr=1e-3,1e-2")
    assert ended.code == 0, ended.err
    assert (project / "notes.txt").read_text().splitlines() == [
        "sweep MLP",
        "start 0.001 optimizer.lr=0.001",
        "end 0.001 COMPLETED True",
        "start 0.01 optimizer.lr=0.01",
        "end 0.01 COMPLETED True",
        "over",
    ]


@pytest.mark.usefixtures("store")
def test_a_launcher_of_hydras_own_runs_each_job_once_under_one_parent(regente: Run, project: Path) -> None:
    (project / "hydra_plugins").mkdir()
    (project / "hydra_plugins/elsewhere.py").write_text(LAUNCHER)
    words = ["train", *[word for word in FAST if word != "tracking=none"], "hydra/launcher=elsewhere", "-m"]
    ended = regente(*words, "optimizer.lr=1e-3,1e-2")
    assert ended.code == 0, ended.err
    assert "2 of 2 jobs done" in ended.out
    results = {path: path.stat().st_mtime_ns for path in sweep_of(project).glob("*/result.json")}
    assert len(results) == 2
    parent = json.loads((sweep_of(project) / "recorded.json").read_text())["run_id"]
    assert parent
    again = regente(*words, "optimizer.lr=1e-3,1e-2")
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in sweep_of(project).glob("*/result.json")} == results
