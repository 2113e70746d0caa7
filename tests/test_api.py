"""The public API: `from regente import train, sweep, ...`, in a program of the user's own."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import regente

PROGRAM = """
import json, os, sys
from regente import Run, evaluate, load_model, predict, runs, sweep, train
gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
assert "torch" not in sys.modules and "mlflow" not in sys.modules
words = ["trainer.max_epochs=1", "data.batch_size=512", "callbacks.resume=null", "tracking=none"]
one = train("digits_mlp", *words)
assert isinstance(one, Run)
assert os.environ.get("CUDA_VISIBLE_DEVICES") == gpus
measured = evaluate(one)
import numpy, torch
numpy.save("x.npy", numpy.zeros((3, 1, 28, 28), numpy.uint8))
answers = predict(["x.npy", "nothing.npy"], one, skip_unreadable=True)
try:
    predict(["x.npy", "nothing.npy"], one)
except Exception as error:
    assert "nothing.npy: no such file" in str(error), error
else:
    raise AssertionError("an input that is missing was left out in silence")
logits = load_model(one)(torch.zeros(2, 1, 28, 28))
jobs = sweep("digits_mlp", *words, "optimizer.lr=1e-3,1e-2")
try:
    sweep("digits_mlp", "optimizer.lr=-1,1e-3")
except Exception as error:
    refused = str(error)
found = {
    "metrics": one.result["metrics"], "job": str(one.job.path), "measured": measured, "answers": len(answers),
    "logits": list(logits.shape), "runs": [str(run.job.path) for run in runs("digits_mlp")], "refused": refused,
    "jobs": [[job.state, job.value, job.run.result["metrics"]["val/acc"]] for job in jobs],
}
open("results.json", "w").write(json.dumps(found))
"""


@pytest.mark.slow
def test_a_program_trains_evaluates_predicts_and_sweeps(project: Path) -> None:
    (project / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=project, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    found = json.loads((project / "results.json").read_text())
    job = Path(found["job"])
    assert set(found["metrics"]) >= {"val/acc", "test/acc"}
    assert found["measured"]["test/acc"] == found["metrics"]["test/acc"]
    assert (found["answers"], found["logits"]) == (3, [2, 10])
    assert json.loads((job / "job.json").read_text())["command"][:3] == ["regente", "train", "digits_mlp"]
    assert found["runs"][0] == str(job) and len(found["runs"]) == 3
    assert [state for state, _, _ in found["jobs"]] == ["done", "done"]
    assert all(value == metric for _, value, metric in found["jobs"])
    assert "optimizer.lr=-1" in found["refused"]


def test_every_public_name_is_there_and_no_module_hides_it() -> None:
    for name in regente.__all__:
        assert getattr(regente, name) is not None
        assert name in dir(regente)
        assert find_spec(f"regente.{name}") is None


def test_an_experiment_that_is_a_sweep_is_refused_by_train(project: Path) -> None:
    (project / "experiments").mkdir()
    text = "defaults: [/train, _self_]\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n"
    (project / "experiments" / "many.yaml").write_text(text)
    with pytest.raises(regente.RegenteError, match=r"a sweep of many jobs; regente\.sweep\(\) runs it"):
        regente.train("many")
