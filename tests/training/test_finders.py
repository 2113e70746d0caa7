"""What is found is as good as given."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from regente.tracking.journal import read
from regente.training.finders import RATES, fastest, steepest
from tests.conftest import Ended
from tests.training.test_fit import jobs, own_project, query, until

Run = Callable[..., Ended]
FAST = ["digits_mlp", "trainer.max_epochs=2", "model.dropout=0.1", "tracking.log_model=none"]


@pytest.mark.usefixtures("store")
def test_a_run_with_found_values_is_the_run_that_they_are_given_to(regente: Run, project: Path) -> None:
    ended = regente(
        "train", *FAST, "trainer.find_lr=true", "trainer.find_batch_size=true", "scheduler=onecycle"
    )
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    found = json.loads((job / "found.json").read_text())
    assert ended.out.count("note: trainer.find_") == 2
    for setting, value in found.items():
        assert f"{setting}={value}" in ended.out
    assert 1e-4 < found["optimizer.lr"] < 1e-1
    assert found["data.batch_size"] in (8, 16, 32, 64)
    curve = json.loads((job / "learning_rates.json").read_text())
    assert len(curve["lr"]) == len(curve["loss"]) > 50
    assert min(curve["lr"]) == pytest.approx(RATES[0])

    given = [f"{setting}={value}" for setting, value in found.items()]
    ended = regente("train", *FAST, *given, "scheduler=onecycle", "tracking=none")
    assert ended.code == 0, ended.err
    (other,) = set(jobs(project)) - {job}
    one, two = (
        torch.load(each / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for each in (job, other)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    losses = [
        [line["values"]["train/loss"] for line in read(each / "journal.jsonl", 0)[0]
         if line["kind"] == "metrics" and "train/loss" in line["values"]]
        for each in (job, other)
    ]  # fmt: skip
    assert losses[0] == losses[1]

    params = dict(query(project, "select key, value from params where key like 'found.%'"))
    assert params == {f"found.{setting}": str(value) for setting, value in found.items()}
    until(lambda: bool(list((project / "mlartifacts").rglob("figures/learning_rates.svg"))))
    assert list((project / "mlartifacts").rglob("finders/learning_rates.json"))


def test_a_batch_that_does_not_fit_ends_the_search_and_not_the_run(regente: Run, project: Path) -> None:
    line = 'assert len(x) <= 32, exec(\'raise __import__("torch").OutOfMemoryError("CUDA out of memory")\')'
    own_project(project, line=line)
    words = ["trainer.find_batch_size=true", "data.batch_size=16", "tracking=none"]
    ended = regente("train", "mine", *words)
    assert ended.code == 0, ended.err
    assert "64 does not fit into memory" in ended.out
    assert json.loads((jobs(project)[0] / "found.json").read_text())["data.batch_size"] <= 32


def test_the_rate_is_where_the_loss_falls_fastest_and_none_where_it_does_not() -> None:
    rates = np.geomspace(*RATES, 100)
    noise = 0.02 * np.random.default_rng(0).standard_normal(100)
    falls = 2.3 - 2 / (1 + (0.01 / rates) ** 2) + np.where(rates > 1, rates, 0) + noise
    found = steepest(list(rates), list(falls))
    assert found is not None
    assert 0.005 < found < 0.02
    assert found == float(f"{found:.1e}")
    assert steepest(list(rates), list(2.3 + noise)) is None
    assert steepest(list(rates), list(2.3 + np.where(rates > 1e-3, rates, 0) + noise)) is None


def test_a_larger_batch_must_bring_a_gain() -> None:
    assert fastest({8: 100.0, 16: 190.0, 32: 300.0, 64: 305.0, 128: 310.0}) == 32
