"""What is faster is the same."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from regente.models.cnn import CNN
from regente.tracking.journal import read
from regente.training.performance import channels_last, fused, tune_process
from tests.conftest import Ended
from tests.training.test_fit import jobs

ADAM = {"_target_": "torch.optim.Adam", "lr": 1e-3}


@pytest.mark.parametrize(
    ("optimizer", "trainer", "wanted"),
    [
        (ADAM, {"precision": 32}, True),
        (ADAM, {"precision": "16-mixed", "gradient_clip_val": 1.0}, False),
        (ADAM, {"precision": "16-mixed"}, True),
        (ADAM, {"precision": 32, "gradient_clip_val": 1.0}, True),
        (ADAM | {"foreach": True}, {}, False),
        ({"_target_": "own.Optimizer"}, {}, False),
    ],
)
def test_an_optimizer_is_fused_where_nothing_speaks_against_it(
    optimizer: dict[str, Any], trainer: dict[str, Any], wanted: bool
) -> None:
    assert fused(optimizer, trainer).get("fused", False) is wanted


def test_what_the_user_says_of_fused_stands() -> None:
    assert fused(ADAM | {"fused": False}, {})["fused"] is False


def test_channels_last_and_fused_train_to_the_same_weights_but_for_rounding() -> None:
    torch.manual_seed(0)  # of other images a pooling's two largest values may be equal but for rounding
    x, y = torch.randn(8, 1, 28, 28), torch.arange(8)
    trained = []
    for fast in (False, True):
        torch.manual_seed(0)
        model: nn.Module = CNN([1, 28, 28], 10, [32, 64, 64], 64)
        model = channels_last(model) if fast else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fast)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        trained.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*trained, rtol=1e-4, atol=1e-5)


def test_relu_behind_the_pooling_gives_the_same_gradients_to_the_bit() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16).mul_(4).round_()  # with ties
    gradients = []
    for layers in ([nn.ReLU(), nn.MaxPool2d(2)], [nn.MaxPool2d(2), nn.ReLU()]):
        inputs = x.clone().requires_grad_()
        nn.Sequential(*layers)(inputs).pow(2).sum().backward()
        gradients.append(inputs.grad)
    assert torch.equal(gradients[0], gradients[1])


SAME = ["digits_mlp", "trainer.max_epochs=3", "tracking=none", "model.dropout=0.2"]
CASES = {
    "as it is": [],
    "a schedule for each step": ["scheduler=onecycle"],
    "a schedule for each epoch": ["scheduler=cosine"],
    "half precision": ["trainer=cpu", "trainer.precision=bf16-mixed"],
}


@pytest.mark.parametrize("case", CASES)
def test_several_steps_per_call_train_the_same_to_the_bit(
    case: str, regente: Callable[..., Ended], project: Path
) -> None:
    for steps in (1, 7):  # twenty steps an epoch: the last call of each has six
        ended = regente("train", *SAME, *CASES[case], f"trainer.steps_per_call={steps}")
        assert ended.code == 0, ended.err
        assert "one step per call" not in ended.out
    require_same(*sorted(jobs(project), key=lambda job: job.stat().st_ctime))


def require_same(one: Path, many: Path) -> None:
    """Both jobs end with the same weights, and have logged the same on the way."""
    found = [json.loads((job / "result.json").read_text()) for job in (one, many)]
    assert found[0]["metrics"] == found[1]["metrics"]
    a, b = last(one), last(many)
    assert a["global_step"] == b["global_step"] == 60
    for key in a["state_dict"]:
        assert torch.equal(a["state_dict"][key], b["state_dict"][key])
    assert str(a["optimizer_states"]) == str(b["optimizer_states"])
    logged = [
        [
            line["values"] | {"step": line["step"]}
            for line in read(job / "journal.jsonl", 0)[0]
            if line["kind"] == "metrics"
        ]
        for job in (one, many)
    ]
    kept = [[row for row in rows if "train/samples_per_second" not in row] for rows in logged]
    assert kept[0] == kept[1]


def last(job: Path) -> dict[str, Any]:
    """The state at the end of a job."""
    return torch.load(job / "checkpoints/last.ckpt", weights_only=True)  # type: ignore[no-any-return]


def test_what_wants_to_see_each_step_gets_it_and_says_so(regente: Callable[..., Ended]) -> None:
    ended = regente("train", *SAME, "trainer.steps_per_call=4", "trainer.gradient_clip_val=1.0")
    assert ended.code == 0, ended.err
    assert "trainer.steps_per_call=4: one step per call, because of trainer.gradient_clip_val" in ended.out


OWN_TASK = """
from regente.tasks.classifier import Classifier
class Warm(Classifier):
    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
"""


def test_a_task_with_a_hook_of_its_own_gets_each_step(regente: Callable[..., Ended], project: Path) -> None:
    (project / "own.py").write_text(OWN_TASK)
    ended = regente("train", *SAME, "trainer.steps_per_call=4", "task._target_=own.Warm")
    assert ended.code == 0, ended.err
    assert "trainer.steps_per_call=4: one step per call, because of task" in ended.out


OWN_TASKS = """
import torch
from pytorch_lightning import LightningModule
from regente.tasks.classifier import Classifier

class Forward(Classifier):
    def forward(self, x):
        return super().forward(2 * x)

class Init(Classifier):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
    def take_steps(self, number):
        raise AssertionError("nobody calls it")

class Optimizers(Classifier):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Plain(LightningModule):
    batches_per_call = 4  # a word of its own
    def __init__(self, model, optimizer, scheduler, monitor):
        super().__init__()
        self.model, self.make, self.taken = model, optimizer, 0
    def take_steps(self, number):
        self.taken += number
    def training_step(self, batch, index):
        self.take_steps(1)
        return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.log("val/acc", (self.model(batch[0]).argmax(-1) == batch[1]).float().mean())
    def configure_optimizers(self):
        return self.make(self.parameters())
    def on_train_end(self):
        assert self.taken == self.global_step == 60
"""


@pytest.mark.parametrize("name", ["Forward", "Init"])
def test_a_task_of_the_users_takes_several_steps_per_call_to_the_same_bit(
    name: str, regente: Callable[..., Ended], project: Path
) -> None:
    (project / "own.py").write_text(OWN_TASKS)
    for steps in (1, "auto"):
        ended = regente("train", *SAME, f"trainer.steps_per_call={steps}", f"task._target_=own.{name}")
        assert ended.code == 0, ended.err
    one, many = sorted(jobs(project), key=lambda job: job.stat().st_ctime)
    assert last(one)["position"]["grouped_steps"] is None
    assert last(many)["position"]["grouped_steps"] > 1
    require_same(one, many)


@pytest.mark.parametrize("name", ["Optimizers", "Plain"])
def test_a_task_that_steps_in_its_own_way_takes_single_steps(
    name: str, regente: Callable[..., Ended], project: Path
) -> None:
    (project / "own.py").write_text(OWN_TASKS)
    ended = regente("train", *SAME, "trainer.steps_per_call=auto", f"task._target_=own.{name}")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    assert last(job)["position"]["grouped_steps"] is None
    assert last(job)["global_step"] == 60


FAULTS = """
import resource
import torch
from regente.training.performance import tune_process
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(20_000_000, dtype=torch.uint8).fill_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20
print(faults())
tune_process()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc keeps memory in its own way")
def test_memory_that_a_step_frees_is_not_taken_from_the_kernel_again_by_the_next() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    )
    before, after = map(int, done.stdout.split())
    assert after < 50  # pages of 4 KiB; 20 MB are 5,000
    assert before > 10 * after


def test_a_job_on_the_cpu_sees_no_gpu_and_one_on_any_device_sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    tune_process()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    tune_process("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert torch.cuda.device_count() == 0
