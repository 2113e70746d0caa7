"""Launchers and sources of trials of a user's own, found by their `_target_` and run with real jobs."""

import json
from pathlib import Path

import pytest

from tests.sweeps.test_sweep import FAST, Run, states, sweep_of

LAUNCHER = """
import os, subprocess, sys, time

class OneByOne:
    def __init__(self, folder, config, *, nice: int = 0):
        self.slots, self.nice, self.running = 1, nice, None

    def submit(self, job, config, env):
        command = ["nice", "-n", str(self.nice), sys.executable, "-m", "regente.sweeps.slot", str(job.path)]
        full = {**os.environ, **env, "NICE": str(self.nice)}
        self.running = job, subprocess.Popen(command, env=full, start_new_session=True)

    def poll(self, timeout):
        if self.running is None:
            return []
        job, process = self.running
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return []
        self.running = None
        (job.path / "by_own_launcher").write_text(str(code))
        return [(job, code if code >= 0 else 128 - code)]

    def stop(self, job):
        if self.running:
            self.running[1].terminate()

    def close(self):
        self.stop(None)
"""
SOURCE = """
from regente.sweeps.protocols import TrialSpec

class Halving:
    adaptive = True

    def __init__(self, folder, overrides, config, *, start: float = 0.01, n_trials: int = 3):
        self.fixed, self.lr, self.total, self.number = overrides, start, n_trials, 0
        self.log, self.waiting = folder / "told.txt", False

    def ask(self):
        if self.waiting or self.number == self.total:
            return None
        self.waiting = True
        self.number += 1
        return TrialSpec(self.number - 1, [*self.fixed, f"optimizer.lr={self.lr}"])

    def tell(self, trial, outcome):
        self.waiting = False
        self.lr = self.lr / 2
        with self.log.open("a") as file:
            print(trial.number, outcome.code, outcome.metrics["val/acc"], file=file)
"""


def add(project: Path, group: str, name: str, text: str) -> None:
    folder = project / "conf/hydra" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)


def test_a_launcher_of_a_users_own_runs_each_job_once_with_its_settings(regente: Run, project: Path) -> None:
    (project / "own_launcher.py").write_text(LAUNCHER)
    add(project, "launcher", "own", "# A test's\n_target_: own_launcher.OneByOne\nnice: 1\nretries: 0\n")
    words = ["train", *FAST, "hydra/launcher=own", "-m", "seed=1"]
    ended = regente(*words)
    assert ended.code == 0, ended.err
    assert "1 of 1 jobs done" in ended.out
    (left,) = sweep_of(project).glob("*/by_own_launcher")
    assert left.read_text() == "0"
    again = regente(*words)
    assert (again.code, "started" in again.out) == (0, False)
    refused = regente(*words[:-1], "seed=2", "+hydra.launcher.nise=2")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "OneByOne: got an unexpected keyword argument 'nise'" in refused.err


def test_a_source_of_a_users_own_is_asked_and_told_until_it_has_no_more(regente: Run, project: Path) -> None:
    (project / "own_source.py").write_text(SOURCE)
    add(project, "sweeper", "halving", "# A test's\n_target_: own_source.Halving\nstart: 0.02\n")
    ended = regente("train", *FAST, "-m", "hydra/sweeper=halving", "seed=3")
    assert ended.code == 0, ended.err
    assert "3 of 3 jobs done" in ended.out
    assert set(states(project)) == {
        "optimizer.lr=0.02",
        "optimizer.lr=0.01",
        "optimizer.lr=0.005",
    }
    told = [line.split() for line in (sweep_of(project) / "told.txt").read_text().splitlines()]
    assert [(number, code) for number, code, _ in told] == [("0", "0"), ("1", "0"), ("2", "0")]
    results = [json.loads(file.read_text()) for file in sweep_of(project).glob("*/result.json")]
    measured = {f"{result['metrics']['val/acc']:.9f}" for result in results}
    assert {f"{float(value):.9f}" for *_, value in told} == measured


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["hydra/launcher=wrong"], "own_parts.Poor: is not a Launcher, it has no poll, stop, close"),
        (["hydra/sweeper=wrong"], "own_parts.Poor: is not a TrialSource, it has no ask, tell, adaptive"),
        (["hydra/launcher=missing"], "own_parts.Missing: cannot be imported"),
        (["hydra/launcher=slotless"], "Slotless has no attribute slots"),
    ],
)
def test_a_class_that_does_not_offer_what_the_protocol_names_is_refused_in_one_line(
    words: list[str], telling: str, regente: Run, project: Path
) -> None:
    (project / "own_parts.py").write_text(
        "class Poor:\n    def submit(self, job, config, env): ...\n"
        "class Slotless(Poor):\n    def __init__(self, folder, config): ...\n"
        "    def poll(self, timeout): ...\n    def stop(self, job): ...\n    def close(self): ...\n"
    )
    for name, cls in (("wrong", "Poor"), ("missing", "Missing"), ("slotless", "Slotless")):
        add(project, "launcher", name, f"# A test's\n_target_: own_parts.{cls}\n")
    add(project, "sweeper", "wrong", "# A test's\n_target_: own_parts.Poor\n")
    ended = regente("train", *FAST, "-m", "seed=1,2", *words)
    assert (ended.code, len(ended.lines)) == (2, 1), ended.err
    assert telling in ended.err
    assert not list(project.glob("runs/*/sweep-*/states/*"))


def test_the_extremes_of_a_users_source_are_checked_before_it_starts(regente: Run, project: Path) -> None:
    extremes = '    def extremes(self):\n        return [[*self.fixed, "optimizer.lr=-1"]]\n'
    (project / "own_source.py").write_text(SOURCE + extremes)
    add(project, "sweeper", "halving", "# A test's\n_target_: own_source.Halving\n")
    refused = regente("train", *FAST, "hydra/sweeper=halving", "-m")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "optimizer.lr=-1" in refused.err
