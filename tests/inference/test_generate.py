"""A language model that is trained, logged, and goes on with texts."""

import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from regente.models.text_generation import Sampling, continue_text, draw
from tests.conftest import Ended
from tests.training.test_fit import jobs, until

Run = Callable[..., Ended]
SMALL = [
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=5",
    "trainer.limit_val_batches=2",
    "model.hidden=8",
]


class Next(nn.Module):
    """Says that the next word is the one after the last of at most three words."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] <= 3
        return torch.eye(6)[(x[:, -1] + 1) % 6] * 9


def key() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_it_goes_on_from_the_last_words_of_the_window_alone() -> None:
    added = continue_text(Next(), torch.tensor([[5, 4, 3, 1], [1, 1, 1, 2]]), 3, 3, Sampling(0), key())
    assert added.tolist() == [[2, 3, 4], [3, 4, 5]]


def test_the_unknown_word_is_never_drawn() -> None:
    logits = torch.tensor([[50.0, 1.0, 0.0]]).repeat(200, 1)
    for temperature in (0, 1e-30, 1, 1e30):
        assert not draw(logits, Sampling(temperature, None), key()).eq(0).any()


def test_a_word_is_drawn_of_the_likeliest_alone_and_at_temperature_0_it_is_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 4.0, 3.0, 2.0, 1.0]]).repeat(500, 1)
    assert draw(logits, Sampling(5.0, 2), key()).unique().tolist() == [1, 2]
    assert draw(logits, Sampling(5.0, 99), key()).unique().tolist() == [1, 2, 3, 4]
    assert draw(logits, Sampling(0, 3), key()).unique().tolist() == [1]


def test_the_same_seed_draws_the_same_words_and_the_global_random_state_stays() -> None:
    logits, before = torch.zeros(50, 9), torch.get_rng_state()
    assert torch.equal(draw(logits, Sampling(), key()), draw(logits, Sampling(), key()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_text_run_leaves_samples_and_a_model_of_words_and_generates(regente: Run, project: Path) -> None:
    ended = regente("train", "text_lstm", *SMALL)
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    metrics = json.loads((job / "result.json").read_text())["metrics"]
    for split in ("val", "test"):
        assert metrics[f"{split}/perplexity"] == pytest.approx(math.exp(metrics[f"{split}/loss"]), rel=1e-5)
    assert [file.name for file in sorted((job / "samples").iterdir())] == ["epoch-001.txt", "epoch-002.txt"]
    assert (job / "samples/epoch-002.txt").read_text().count("\n> ") == 3

    texts = [
        regente("generate", "latest", "--prompt", "The ZZZ of", "--words", "5", "--seed", seed)
        for seed in "112"
    ]
    assert [text.code for text in texts] == [0, 0, 0], texts[0].err
    assert texts[0].out == texts[1].out != texts[2].out
    assert texts[0].out.startswith("the zzz of")
    assert "<unknown>" not in texts[0].out
    state = json.loads((job / "recorded.json").read_text())
    assert regente("generate", state["run_id"][:8], "--temperature", "0").code == 0

    until(lambda: json.loads((job / "recorded.json").read_text()).get("complete") is True)
    artifacts = {path.name for path in (project / "mlartifacts").rglob("*") if path.is_file()}
    assert {"epoch-001.txt", "epoch-002.txt", "vocabulary.txt", "learning_curves.svg"} <= artifacts
    assert not {"confusion_matrix.svg", "worst_mistakes.svg"} & artifacts
    with sqlite3.connect(project / "mlflow.db") as database:
        assert database.execute("select value from tags where key = 'regente.model'").fetchall() == []
        ((model,),) = database.execute("select model_id from logged_models").fetchall()
    program = (
        "import sys; sys.modules['regente'] = None\n"
        "import mlflow, numpy as np\n"
        f"mlflow.set_tracking_uri('sqlite:///{project}/mlflow.db')\n"
        f"model = mlflow.pyfunc.load_model('models:/{model}')\n"
        "assert model.predict(np.full((5, 20), 999, dtype=np.int64)).shape == (5, 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr

    (best,) = (job / "checkpoints").glob("epoch*.ckpt")
    best.write_bytes(best.read_bytes()[:1000])
    ended = regente("generate", "text_lstm")
    assert ended.code == 5
    assert len(ended.lines) == 1 and "damaged" in ended.err
    best.unlink()
    ended = regente("generate", "text_lstm")
    assert ended.code == 5
    assert len(ended.lines) == 1 and "no such checkpoint" in ended.err


def test_a_run_that_is_no_language_model_is_refused_and_so_is_one_that_is_not_there(regente: Run) -> None:
    assert regente("train", "digits_mlp", "trainer=debug", "tracking=none").code == 0
    ended = regente("generate", "digits_mlp")
    assert ended.code == 2
    assert len(ended.lines) == 1 and "mlp on digits is no language model" in ended.err
    ended = regente("generate", "nope")
    assert ended.code == 6
    assert len(ended.lines) == 1 and "there is: latest, runs/digits_mlp/" in ended.err
