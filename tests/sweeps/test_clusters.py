"""Ray, on this machine alone, and Slurm's hand-over by submitit, with its local executor."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.sweeps.test_sweep import FAST, Run, Start, states, sweep_of, until
from tests.sweeps.test_sweep import net as net  # a fixture

LAUNCHERS = {
    "ray": ["hydra/launcher=ray", "hydra.launcher.jobs=2"],
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.jobs=2"],
}


def calls(project: Path) -> list[str]:
    """The ending of each job that got as far as its model."""
    file = project / "runs/calls"
    return [line.rsplit(" ", 2)[0] for line in file.read_text().splitlines()] if file.is_file() else []


def wait_for_the_end(project: Path, seconds: float) -> None:
    """Wait until no job is left, nor what ran it; Ray's own agents stay for a minute or two after a kill."""
    end = time.monotonic() + seconds
    while left := processes_of(project):
        assert time.monotonic() < end, left
        time.sleep(0.5)


def processes_of(project: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline()).strip()
            ours = process.pid != os.getpid() and any(
                name in words for name in ("regente", "submitit", "raylet", "ray::_task")
            )
            if (
                ours
                and "forkserver" not in words
                and process.cwd() == str(project)
                and process.status() != "zombie"
            ):
                found.append(f"{process.pid} {words}")
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm", pytest.param("ray", marks=pytest.mark.variant)])
def test_what_a_killed_driver_left_undone_is_done_later_and_a_killed_job_is_tried_again(
    launcher: str, start: Start, regente: Run, net: Path
) -> None:
    words = ["train", *FAST, "-m", *LAUNCHERS[launcher], "model=net"]
    driver = start(*words, "model.ending=well,never")
    until(
        lambda: (
            sorted(calls(net)) == ["never", "well"] and states(net)["model.ending=well"]["state"] == "done"
        ),
        120,
    )
    assert driver.pid is not None
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    wait_for_the_end(net, 40)

    ended = regente(*words, "model.ending=well,'at first',badly", "hydra.launcher.retries=1")
    assert ended.code == 1
    found = {key.partition("=")[2]: (state["state"], state["attempt"]) for key, state in states(net).items()}
    assert found == {
        "well": ("done", 1),
        "'at first'": ("done", 2),
        "badly": ("failed", 2),
        "never": ("killed", 1),
    }
    assert sorted(calls(net)) == ["at first", "at first", "badly", "badly", "never", "well"]
    assert "boom in Net" in states(net)["model.ending=badly"]["reason"]
    wait_for_the_end(net, 40)


@pytest.mark.parametrize(
    ("words", "code", "telling"),
    [
        (["hydra/launcher=slurm"], 3, "srun"),
        (["hydra/launcher=slurm", "hydra.launcher.cluster=pbs"], 2, "there is: slurm, local"),
        (["hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.jobs=0"], 2, "above 0"),
        (
            ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "+hydra.launcher.parameters.slurm_acount=a"],
            2, "slurm_acount",
        ),
        (["hydra/launcher=ray", "hydra.launcher.gpus_per_job=-1"], 2, "must be above 0, or null"),
        (["hydra/launcher=ray", "hydra.launcher.shared=false", "tracking=mlflow"], 2, "give a server"),
        (["hydra/launcher=ray", "+hydra.launcher.adress=auto"], 2, "adress"),
        (["hydra/launcher=ray", "hydra.launcher.address='127.0.0.1:1'"], 3, "no Ray cluster answers"),
    ],
)  # fmt: skip
def test_what_a_launcher_cannot_do_is_told_in_a_line_and_no_job_is_started(
    words: list[str], code: int, telling: str, regente: Run, project: Path
) -> None:
    ended = regente("train", *FAST, "-m", "optimizer.lr=0.1,0.2", *words)
    assert (ended.code, len(ended.lines)) == (code, 1), ended.err
    assert telling in ended.err
    assert not list(project.glob("runs/*/sweep-*/states/*"))


@pytest.mark.slow
def test_ray_alone_listens_to_this_machine_only_sends_jobs_there_and_back_and_outlives_a_worker(
    start: Start, net: Path
) -> None:
    words = ["train", *FAST, "-m", *LAUNCHERS["ray"], "hydra.launcher.shared=false", "model=net", "seed=1,2"]
    driver = start(*words, "hydra.launcher.retries=1")
    until(lambda: calls(net), 120)
    mine = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    heard = {c.laddr.ip for process in mine for c in process.net_connections("tcp") if c.status == "LISTEN"}
    assert heard and heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    next(process for process in mine if "ray::_task" in " ".join(process.cmdline())).kill()
    driver.join(150)
    assert driver.exitcode == 0, (net / "err").read_text()
    assert sorted(state["attempt"] for state in states(net).values()) == [1, 2]
    for state in states(net).values():
        result = json.loads((sweep_of(net) / state["directory"] / "result.json").read_text())
        assert result["pruned"] is False
        assert "/regente-" not in json.dumps(result)
