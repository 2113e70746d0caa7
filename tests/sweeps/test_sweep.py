"""The real program in a project: what is done once, what is refused, and how sweeps end."""

import json
import os
import re
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from regente.jobs.exit_status import FAULT
from regente.jobs.hardware import cores
from regente.sweeps import gpu_slots
from regente.sweeps.fork_server import ForkServer
from regente.sweeps.slot import last_line
from regente.tracking.journal import read
from tests.conftest import Ended
from tests.training.test_fit import query, until

Run = Callable[..., Ended]
Start = Callable[..., ForkServerProcess]
FAST = ["digits_mlp", "trainer.max_epochs=1", "data.batch_size=512", "callbacks=none", "tracking=none"]
LONG = ["digits_mlp", "trainer.max_epochs=100000", "tracking=none"]
ONE = "hydra.launcher.jobs=1"
MODEL = """
import os, signal, sys, time
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes: int, input_shape: list[int], ending: str = "well"):
        super().__init__()
        self.ending = ending
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
        with open("runs/calls", "a") as file:
            print(ending, os.getpid(), time.time(), file=file)
        if ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if ending == "at first" and not Path("tried").exists():
            Path("tried").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if ending == "never":
            time.sleep(60)

    def forward(self, x):
        if self.ending == "badly" and not Path("mended").exists():
            raise RuntimeError("boom in Net")
        return self.layers(x)
"""
CONFIG = """# A test's
_target_: net.Net
num_classes: ${data.num_classes}
input_shape: ${data.input_shape}
ending: well
"""


@pytest.fixture
def net(project: Path) -> Path:
    """A model of the user's own that ends as its setting says."""
    (project / "net.py").write_text(MODEL)
    (project / "conf/model").mkdir(parents=True)
    (project / "conf/model/net.yaml").write_text(CONFIG)
    return project


def sweep_of(project: Path) -> Path:
    (path,) = project.glob("runs/*/sweep-*")
    return path


def states(project: Path) -> dict[str, dict[str, Any]]:
    """The states of the jobs, by what they vary."""
    found = [json.loads(file.read_text()) for file in sorted(sweep_of(project).glob("states/*.json"))]
    return {state["overrides"][-1]: state for state in found}


def job_dirs(project: Path) -> list[Path]:
    return sorted(path.parent for path in sweep_of(project).glob("*/job.json"))


def training(project: Path) -> int:
    """How many jobs have begun to train."""
    return sum('"train/loss"' in file.read_text() for file in project.glob("runs/*/*/*/journal.jsonl"))


def test_the_same_words_again_do_nothing_and_more_values_only_what_is_new(
    regente: Run, project: Path
) -> None:
    ended = regente("train", *FAST, "-m", "optimizer.lr=1e-3,1e-2,1e-3")
    assert ended.code == 0, ended.err
    assert "2 of 2 jobs done" in ended.out
    before = {
        path: path.stat().st_mtime_ns for path in project.rglob("*.json") if path.parent.parent.name != "runs"
    }
    results = {path: time_ns for path, time_ns in before.items() if path.name in ("result.json", "job.json")}
    again = regente("train", *FAST, "-m", "optimizer.lr=1e-3,1e-2,1e-3")
    assert (again.code, "started" in again.out) == (0, False), again.err
    assert "2 of 2 jobs done" in again.out
    more = regente("train", *FAST, "-m", "optimizer.lr=1e-2,1e-1,1e-3")
    assert more.code == 0, more.err
    assert re.findall("started .*", more.out) == ["started  optimizer.lr=0.1"]
    assert {path: path.stat().st_mtime_ns for path in results} == results
    configs = [yaml.safe_load((path / "config.yaml").read_text()) for path in job_dirs(project)]
    assert sorted(config["optimizer"]["lr"] for config in configs) == [1e-3, 1e-2, 1e-1]
    report = sweep_of(project) / "report.html"
    assert "3 runs (3 done), which differ in optimizer.lr" in report.read_text()
    journal, _ = read(sweep_of(project) / "journal.jsonl", 0)
    assert "report.html" in [line["path"] for line in journal if line["kind"] == "artifact"]
    tables = [line["text"] for line in journal if line["kind"] == "description"]
    assert [table.partition("\n\n")[0].count("\n") for table in tables] == [3, 4]  # written again
    assert "| 0.1 |" in tables[-1]


def test_rerun_does_again_what_is_done_beside_it(regente: Run, project: Path) -> None:
    words = ["train", *FAST, "-m", "seed=1"]
    assert regente(*words).code == 0
    first = (job_dirs(project)[0] / "result.json").read_bytes()
    assert regente(*words, "rerun=true").code == 0
    assert [path.name.rpartition("-")[2] for path in job_dirs(project)][1:] == ["2"]
    assert (job_dirs(project)[0] / "result.json").read_bytes() == first
    assert states(project)["seed=1"]["attempt"] == 2


def test_other_code_of_the_user_is_another_job(regente: Run, net: Path) -> None:
    words = ["train", *FAST, "model=net", "-m", "seed=1"]
    assert regente(*words).code == 0
    (net / "net.py").write_text(MODEL + "\n# changed\n")
    assert regente(*words).code == 0
    assert len(job_dirs(net)) == 2


def test_a_typo_in_one_of_twenty_jobs_starts_none(regente: Run, project: Path) -> None:
    values = ",".join(f"{number}e-3" for number in range(1, 20))
    ended = regente("train", *FAST, "-m", f"optimizer.lr={values},abc")
    assert ended.code == 2
    assert ended.lines == [
        "optimizer.lr=abc: needs a number (job #19 of 20: optimizer.lr=abc; none was started)"
    ]
    assert not (project / "runs").exists()


def test_what_all_jobs_share_is_said_once(regente: Run) -> None:
    ended = regente("train", *FAST, "-m", "seed=range(20)", "trainer.max_epoch=3", "model=mlp,mpl")
    assert ended.code == 2
    assert len(ended.lines) == 2
    assert ended.lines[0].startswith("trainer.max_epoch: no such setting; did you mean trainer.max_epochs?")
    assert ended.lines[1].startswith("model=mpl: no such model; did you mean mlp?")


def test_a_million_jobs_have_to_be_confirmed(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "-m", "seed=range(1000)", "optimizer.lr=range(1,1001)")
    assert ended.code == 2
    assert "1,000,000 jobs (seed 1,000 x optimizer.lr 1,000)" in ended.err
    assert "sweep.max_jobs=1000000" in ended.err
    assert not (project / "runs").exists()


def test_a_dry_run_lists_the_jobs_and_starts_none(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "-m", "optimizer.lr=1e-3,1e-2", "model=mlp,cnn", "--dry-run")
    assert ended.code == 0, ended.err
    assert re.findall(r"#(\d)  [0-9a-f]{12}  queued   (.*)", ended.out) == [
        ("0", "optimizer.lr=0.001 model=mlp"),
        ("1", "optimizer.lr=0.001 model=cnn"),
        ("2", "optimizer.lr=0.01 model=mlp"),
        ("3", "optimizer.lr=0.01 model=cnn"),
    ]
    assert "4 jobs; none was started" in ended.out
    assert not (project / "runs").exists()


def test_a_dry_run_of_an_experiment_that_is_a_sweep_needs_no_m(regente: Run, project: Path) -> None:
    ended = regente("train", "digits_search", "--dry-run")
    assert ended.code == 0, ended.err
    assert "its extremes checked; none was started" in ended.out
    refused = regente("train", "digits_mlp", "--dry-run")
    assert (refused.code, refused.lines) == (2, ["--dry-run: goes with -m; regente check looks at one run"])
    assert not (project / "runs").exists()


def test_a_config_may_read_a_variable_that_it_sets(regente: Run, project: Path) -> None:
    (project / "experiments").mkdir()
    (project / "experiments/reads.yaml").write_text(
        "# A test's\ndefaults: [/train, override /model: mlp, _self_]\nhydra: {job: {env_set: {NCCL_DEBUG: 'INFO'}}}\n"
        "tracking: {run_name: '${oc.env:NCCL_DEBUG}'}\n"
    )
    words = ["reads", "trainer=debug"]
    assert regente("train", *words).code == 0
    evaluated = regente("evaluate", "latest")
    assert evaluated.code == 0, evaluated.err
    swept = regente("check", "-m", *words, "optimizer.lr=1e-3,1e-2")
    assert swept.code == 0, swept.err


def test_a_job_that_fails_is_told_and_the_others_run(regente: Run, net: Path) -> None:
    ended = regente("train", *FAST, "model=net", "-m", "model.ending=well,badly,killed,fine")
    assert ended.code == 1
    assert "2 of 4 jobs done" in ended.out
    assert re.search(r"#1  failed with exit code 1: .*net.py:\d+: RuntimeError: boom in Net", ended.out)
    assert "#2  failed with exit code 137: ended by SIGKILL (is the memory full?)" in ended.out
    assert {name: state["state"] for name, state in states(net).items()} == {
        "model.ending=well": "done",
        "model.ending=fine": "done",
        "model.ending=badly": "failed",
        "model.ending=killed": "failed",
    }


def test_a_killed_job_is_tried_again_if_asked(regente: Run, net: Path) -> None:
    words = ["model=net", "hydra.launcher.retries=1", "-m", "model.ending=at first,well"]
    ended = regente("train", *FAST, *words)
    assert ended.code == 0, ended.out + ended.err
    assert {state["attempt"] for state in states(net).values()} == {1, 2}


def test_a_failure_may_end_the_sweep(regente: Run, net: Path) -> None:
    words = ["model=net", ONE, "hydra.launcher.on_failure=stop", "-m", "model.ending=badly,well"]
    ended = regente("train", *FAST, *words)
    assert ended.code == 1
    assert len(job_dirs(net)) == 1
    assert "0 of 1 jobs done, 1 not started: hydra.launcher.on_failure=stop" in ended.out
    assert f"to go on: regente sweep resume {sweep_of(net).name}" in ended.out


def test_a_job_over_its_time_is_ended(regente: Run, net: Path) -> None:
    words = ["model=net", "hydra.launcher.max_minutes=0.05", "-m", "model.ending=never,well"]
    ended = regente("train", *FAST, *words)
    assert ended.code == 1
    assert "1 of 2 jobs done" in ended.out
    assert "hydra.launcher.max_minutes=0.05 were over" in ended.out


def test_a_run_to_begin_with_is_the_same_for_all_jobs_and_command_lines(regente: Run, project: Path) -> None:
    kept = [word for word in FAST if word != "callbacks=none"]
    assert regente("train", *kept).code == 0
    words = ["train", *kept, ONE, "init_from=latest", "-m", "seed=1,2"]
    assert "2 of 2 jobs done" in regente(*words).out
    begun = {yaml.safe_load((job / "config.yaml").read_text())["init_from"] for job in job_dirs(project)}
    assert len(begun) == 1 and "sweep-" not in begun.pop()
    again = regente(*words)
    assert "2 of 2 jobs done" in again.out and "started" not in again.out


def test_secrets_of_a_sweep_are_not_written_down_and_a_job_that_failed_has_them_again(
    regente: Run, net: Path
) -> None:
    (net / "conf/model/net.yaml").write_text(CONFIG + "api_key: none\n")
    (net / "net.py").write_text(
        MODEL.replace('ending: str = "well"', 'ending: str = "well", api_key: str = ""')
    )
    words = ["train", *FAST, "model=net", ONE, "model.api_key=sesame-1234", "-m", "model.ending=badly,well"]
    words += ["+hydra.job.env_set.HF_TOKEN=open-5678"]
    assert regente(*words).code == 1
    (net / "mended").touch()
    ended = regente(*words)
    assert ended.code == 0, ended.out
    for file in sweep_of(net).rglob("*"):
        if file.is_file():
            assert b"sesame-1234" not in file.read_bytes(), file
            assert b"open-5678" not in file.read_bytes(), file


@pytest.mark.skipif(torch.cuda.is_available(), reason="the jobs are to say which GPU they looked for in vain")
@pytest.mark.parametrize(("words", "seen"), [((), "0123"), (("hydra.launcher.jobs_per_gpu=2",), "00112233")])
def test_each_job_sees_its_own_gpu_or_its_share_of_one(
    regente: Run, project: Path, words: tuple[str, ...], seen: str
) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    ended = regente("train", *FAST, "trainer=gpu", *words, "-m", f"seed=range({len(seen)})", env=env)
    assert ended.code == 1
    found = [re.search(r"CUDA_VISIBLE_DEVICES='(.*?)'", s["reason"]) for s in states(project).values()]
    assert sorted(match[1] for match in found if match) == list(seen)


@pytest.mark.parametrize("forked", ["true", "false"])
def test_jobs_side_by_side_have_no_more_threads_than_their_share_of_the_cores(
    forked: str, regente: Run, net: Path
) -> None:
    (net / "net.py").write_text(
        "import torch\n"
        + MODEL.replace(
            "self.ending = ending", "print(torch.get_num_threads(), 'threads')\n        self.ending = ending"
        )
    )
    words = ["model=net", "hydra.launcher.jobs=2", f"hydra.launcher.fork_server={forked}", "-m", "seed=1,2"]
    assert regente("train", *FAST, *words, env={"OMP_NUM_THREADS": "64"}).code == 0
    share = max(1, cores() // 2)
    for job in job_dirs(net):
        assert f"{share} threads\n" in (job / "stdout.log").read_text()


def test_a_job_may_have_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    slots = gpu_slots.slots({"accelerator": "auto", "devices": 2}, None, None, 1)
    assert slots == [gpu_slots.Slot(("4", "5")), gpu_slots.Slot(("6", "7"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_an_interrupted_sweep_saves_and_starts_no_other_job(
    number: signal.Signals, start: Start, project: Path
) -> None:
    process = start("train", *LONG, ONE, "-m", "seed=1,2,3")
    until(lambda: training(project))
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    (job,) = job_dirs(project)
    assert '"status":"KILLED"' in (job / "journal.jsonl").read_text()
    assert "0 of 1 started jobs done, then stopped" in (project / "out").read_text()
    assert states(project)["seed=1"]["state"] == "killed"


def test_jobs_that_are_told_to_stop_while_their_server_still_starts_end(project: Path) -> None:
    server = ForkServer(project / "fork_server.log", [])
    jobs = [project / "one", project / "two"]
    for job in jobs:
        server.start(job, {}, 1)
    for job in jobs:
        server.signal(job, signal.SIGTERM)
    ended = server.poll(10)
    assert sorted(path for path, _ in ended) == jobs
    assert not server.alive
    server.close()


def test_jobs_end_when_the_driver_of_their_sweep_is_killed(start: Start, project: Path) -> None:
    process = start("train", *LONG, "hydra.launcher.jobs=2", "-m", "seed=1,2")
    until(lambda: training(project) == 2)
    process.kill()
    jobs = job_dirs(project)
    until(lambda: all('"kind":"end"' in (job / "journal.jsonl").read_text() for job in jobs), 30)
    ends = [json.loads((job / "journal.jsonl").read_text().splitlines()[-1]) for job in jobs]
    assert [end["status"] for end in ends] == ["KILLED", "KILLED"]


def test_after_a_kill_of_the_driver_the_same_words_finish_the_rest(
    start: Start, regente: Run, net: Path
) -> None:
    words = ["train", *FAST, "model=net", "hydra.launcher.jobs=2", "-m", "seed=range(6)"]
    process = start(*words)
    until(lambda: len(list(net.glob("runs/*/*/*/result.json"))) >= 2)
    process.kill()
    ended = regente(*words)
    assert ended.code == 0, ended.out + ended.err
    assert "6 of 6 jobs done" in ended.out
    assert len(list(sweep_of(net).glob("*/result.json"))) == 6
    assert {state["state"] for state in states(net).values()} == {"done"}


def test_two_drivers_of_one_sweep_are_refused(start: Start, regente: Run, project: Path) -> None:
    process = start("train", *LONG, ONE, "-m", "seed=1,2")
    until(lambda: training(project))
    out = (project / "out").read_text()
    ended = regente("train", *LONG, ONE, "-m", "seed=1,2")
    assert ended.code == 1
    assert f"process {process.pid} on " in ended.err
    assert "regente sweep stop" in ended.err
    assert out.startswith("started")


def test_a_sweep_is_looked_at_stopped_from_elsewhere_and_gone_on_with(
    start: Start, regente: Run, project: Path
) -> None:
    process = start("train", *LONG, ONE, "-m", "seed=1,2")
    until(lambda: training(project))
    looked = regente("sweep", "status")
    assert f"run by process {process.pid} on" in looked.out
    assert "1 running, 1 queued" in looked.out
    stopped = regente("sweep", "stop", "digits_mlp")
    assert stopped.code == 0, stopped.err
    process.join(10)
    assert process.exitcode == 130
    assert "no process runs it" in regente("sweep", "status", sweep_of(project).name).out
    assert regente("sweep", "stop").out.endswith("no process runs it\n")


def test_what_failed_is_run_again_by_retry_and_by_resume(regente: Run, net: Path) -> None:
    words = ["train", *FAST, "model=net", ONE, "hydra.launcher.on_failure=stop"]
    assert regente(*words, "-m", "model.ending=well,badly,fine").code == 1
    (net / "mended").touch()
    retried = regente("sweep", "retry")
    assert retried.code == 0
    assert re.findall("started .*", retried.out) == ["started  model.ending=badly"]
    assert {name: (state["state"], state["attempt"]) for name, state in states(net).items()} == {
        "model.ending=well": ("done", 1),
        "model.ending=badly": ("done", 2),
    }
    resumed = regente("sweep", "resume", "digits_mlp")
    assert resumed.code == 0, resumed.err
    assert re.findall("started .*", resumed.out) == ["started  model.ending=fine"]


def test_an_unknown_sweep_is_answered_with_those_there_are(regente: Run, project: Path) -> None:
    assert "none yet, regente train -m makes one" in regente("sweep", "status", "nope").err
    assert regente("train", *FAST, "-m", "seed=1").code == 0
    ended = regente("sweep", "status", "nope")
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert f"digits_mlp/{sweep_of(project).name}" in ended.err


@pytest.mark.slow
def test_of_jobs_with_two_ranks_each_one_fails_and_the_others_run(regente: Run, net: Path) -> None:
    ranks = ["trainer=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    ended = regente("train", *FAST, "model=net", *ranks, "-m", "model.ending=well,badly,fine")
    assert ended.code == 1
    assert "2 of 3 jobs done" in ended.out
    assert re.search(r"#1  failed with exit code 1: .*RuntimeError: boom in Net", ended.out)


@pytest.mark.usefixtures("store")
def test_an_interrupted_job_goes_on_in_its_directory_and_its_run_as_if_nothing_had_been(
    start: Start, regente: Run, project: Path
) -> None:
    words = [
        "digits_mlp",
        "trainer.max_epochs=20",
        "data.batch_size=64",
        "tracking.log_model=none",
        ONE,
        "-m",
        "seed=1,2",
    ]
    process = start("train", *words)
    until(lambda: training(project))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    ended = regente("train", *words)
    assert ended.code == 0, ended.out + ended.err
    assert len(job_dirs(project)) == 2
    lines = [json.loads(line) for line in (job_dirs(project)[0] / "journal.jsonl").read_text().splitlines()]
    resumed = [
        json.loads(line)
        for path in job_dirs(project)
        for line in (path / "journal.jsonl").read_text().splitlines()
    ]
    assert [line["number"] for line in resumed if line["kind"] == "resume"] == [1]
    assert lines[-1]["status"] == "FINISHED"
    runs = query(project, "select status, name from runs order by name")
    assert runs[-2:] == [("FINISHED", "seed=1"), ("FINISHED", "seed=2")]
    assert [status for status, _ in runs] == ["FINISHED"] * 3  # the parent too, opened again


@pytest.mark.usefixtures("store")
def test_one_process_records_a_sweep_and_when_it_is_killed_another_one_does(
    start: Start, project: Path
) -> None:
    words = [word for word in FAST if word not in ("tracking=none", "callbacks=none")]
    process = start("train", *words, "-m", "seed=range(3)", ONE)
    until(lambda: len(query(project, "select run_uuid from runs")) >= 2, 120)  # the sweep's and a job's
    (log,) = project.glob("runs/*/sweep-*/shipper.log")
    family = psutil.Process(process.pid).children(recursive=True)
    (recorder,) = [each for each in family if Path(f"/proc/{each.pid}/fd/1").resolve() == log]
    recorder.kill()
    process.join(200)
    assert process.exitcode == 0, (project / "err").read_text()
    assert query(project, "select status, count(*) from runs group by status") == [("FINISHED", 4)]
    once = "select max(n) from (select count(*) n from metrics group by run_uuid, key, step, timestamp)"
    assert query(project, once) == [(1,)]
    logged = "select key, count(*) from metrics where key in ('val/acc', 'best/val/acc') group by key"
    assert query(project, logged) == [("best/val/acc", 4), ("val/acc", 3)]
    assert query(project, "select count(*) from logged_models") == [(1,)]
    assert len(list(project.glob("mlartifacts/*/*/artifacts/figures/confusion_matrix.svg"))) == 3
    assert list(project.glob("runs/*/*/*/shipper.log")) == []
    assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_the_table_names_the_error_of_a_job(tmp_path: Path) -> None:
    assert last_line(tmp_path) == ""
    (tmp_path / "recorded.json").write_text('{"refused": "that experiment is deleted"}')
    (tmp_path / "stderr.log").write_text("\n")
    assert last_line(tmp_path) == "that experiment is deleted"
    (tmp_path / "stderr.log").write_text(f"Traceback\nKeyError: 'x'\n\n{FAULT}\n")
    assert last_line(tmp_path) == "KeyError: 'x'"
