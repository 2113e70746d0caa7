"""Settings of the trainer: what they say is what happens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regente.tracking.journal import read
from tests.conftest import Ended
from tests.training.test_fit import jobs, query

Run = Callable[..., Ended]
FAST = ["digits_mlp", "trainer.max_epochs=1", "data.batch_size=256", "tracking=none"]


def lines(project: Path, kind: str) -> list[dict[str, Any]]:
    """Of the newest job's journal."""
    newest = max(jobs(project), key=lambda job: (job / "config.yaml").stat().st_mtime)
    return [line for line in read(newest / "journal.jsonl", 0)[0] if line["kind"] == kind]


def tags(project: Path) -> dict[str, str]:
    return {key: value for line in lines(project, "tags") for key, value in line["values"].items()}


def result(project: Path) -> dict[str, Any]:
    newest = max(jobs(project), key=lambda job: (job / "config.yaml").stat().st_mtime)
    found: dict[str, Any] = json.loads((newest / "result.json").read_text())
    return found


PRECISIONS = {  # asked -> Lightning's name, dtype of the weights, of products
    "64": ("64-true", "float64", "float64"),
    "32": ("32-true", "float32", "float32"),
    "16": ("bf16-mixed", "float32", "bfloat16"),
    "bf16": ("bf16-mixed", "float32", "bfloat16"),
    "16-true": ("bf16-true", "bfloat16", "bfloat16"),
    "bf16-true": ("bf16-true", "bfloat16", "bfloat16"),
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_trains_and_what_the_device_really_does_is_recorded(
    precision: str, regente: Run, project: Path
) -> None:
    ended = regente("train", *FAST, "trainer=cpu", f"trainer.precision={precision}")
    assert ended.code == 0, ended.err
    name, weights, products = PRECISIONS[precision]
    assert f"cpu, {name}" in ended.out
    assert ("trained in bfloat16" in ended.out) == precision.startswith("16")
    found = tags(project)
    assert found["regente.precision"] == name
    assert found["regente.weights"] == weights
    assert found["regente.matmul"].removesuffix(" (emulated)") == products
    kept = torch.load(result(project)["best_checkpoint"], weights_only=True)["state_dict"]
    assert {str(value.dtype) for value in kept.values()} == {f"torch.{weights}"}


def test_the_precision_of_products_is_that_of_the_run_alone(regente: Run, project: Path) -> None:
    assert regente("check", *FAST, "trainer.matmul_precision=medium").code == 0
    ended = regente("train", *FAST, "trainer=cpu", "trainer.matmul_precision=medium")
    assert ended.code == 0, ended.err
    assert tags(project)["regente.matmul"] in ("float32", "bfloat16")  # as the CPU can


def test_minutes_end_a_training_after_a_validation(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "trainer.max_epochs=100000", "trainer.max_minutes=0.02")
    assert ended.code == 0, ended.err
    assert f"trainer.max_minutes=0.02: time is up in epoch {result(project)['epochs']}\n" in ended.out
    assert 1.2 < result(project)["seconds"] < 60
    assert result(project)["metrics"]["val/acc"] > 0.5


def test_accumulated_batches_make_a_step_as_one_batch_of_their_size_would(
    regente: Run, project: Path
) -> None:
    """But for rounding: the mean of the means of two halves. Its loss is theirs."""
    found, losses = [], []
    for size, batches, together in ((64, 19, 1), (32, 38, 2)):
        words = [f"data.batch_size={size}", f"trainer.accumulate_grad_batches={together}"]
        ended = regente("train", *FAST, *words, "optimizer=sgd", f"trainer.limit_train_batches={batches}")
        assert ended.code == 0, ended.err
        checkpoint = torch.load(result(project)["best_checkpoint"], weights_only=True)
        assert checkpoint["global_step"] == 19
        found.append(torch.cat([value.flatten() for value in checkpoint["state_dict"].values()]))
        logged = [(line["step"], line["values"]) for line in lines(project, "metrics")]
        losses += [(step, values["train/loss"]) for step, values in logged if "train/loss" in values]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert [step for step, _ in losses] == [10, 19] * 2
    torch.testing.assert_close(losses[:2], losses[2:], rtol=1e-4, atol=1e-6)


def test_one_batch_is_one_batch_and_not_the_whole_epoch(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "trainer.limit_train_batches=1")
    assert ended.code == 0, ended.err
    assert torch.load(result(project)["best_checkpoint"], weights_only=True)["global_step"] == 1


def test_a_clipped_gradient_moves_the_weights_no_further_than_it_may(regente: Run, project: Path) -> None:
    moved = []
    for clip in ("1e-3", "1e-6"):
        words = ["optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=false"]
        ended = regente(
            "train", *FAST, *words, f"trainer.gradient_clip_val={clip}", "trainer.limit_train_batches=1"
        )
        assert ended.code == 0, ended.err
        state = torch.load(result(project)["best_checkpoint"], weights_only=True)["state_dict"]
        moved.append(torch.cat([value.flatten() for value in state.values()]))
    assert 0.5e-3 < float((moved[0] - moved[1]).norm()) < 1.1e-3


def test_sanity_steps_validate_before_training_and_leave_no_metric(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "trainer.num_sanity_val_steps=-1")
    assert ended.code == 0, ended.err
    validated = [line["step"] for line in lines(project, "metrics") if "val/loss" in line["values"]]
    assert validated == [5]


def test_a_correct_model_overfits_four_batches(regente: Run, project: Path) -> None:
    ended = regente("train", "digits_mlp", "trainer=overfit", "trainer.max_steps=120", "tracking=none")
    assert ended.code == 0, ended.err
    assert "val and test are the same batches as train" in ended.out
    assert result(project)["metrics"]["test/acc"] == 1.0
    assert result(project)["metrics"]["test/loss"] == pytest.approx(result(project)["metrics"]["val/loss"])
    losses = [
        line["values"]["val/loss"] for line in lines(project, "metrics") if "val/loss" in line["values"]
    ]
    assert len(losses) == 30  # epochs, where the experiment says twenty
    assert losses[-1] < 0.02


@pytest.mark.usefixtures("store")
def test_a_profile_leaves_a_trace_and_a_table_with_the_job_and_the_run(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST[:-1], "trainer=profile", "tracking.log_model=none")
    assert ended.code == 0, ended.err
    assert ended.err == ""
    (job,) = jobs(project)
    events = json.loads((job / "profile/trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::addmm" for event in events)
    assert "aten::addmm" in (job / "profile/operators.txt").read_text()
    assert f"profile     {(job / 'profile').relative_to(project)}" in ended.out
    assert {path.name for path in (project / "mlartifacts").rglob("profile/*")} == {
        "trace.json",
        "operators.txt",
    }
    assert query(project, "select value from tags where key = 'regente.matmul'") == [("float32",)]
