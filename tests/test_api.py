"""`from regente import train, sweep`, in a program of the user's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys
from regente import sweep, train
gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
assert "torch" not in sys.modules and "mlflow" not in sys.modules
words = ["trainer.max_epochs=1", "data.batch_size=512", "callbacks=none", "tracking=none"]
one = train("digits_mlp", *words)
from regente import train as again, sweep as once_more
assert again is train and once_more is sweep  # not the modules of the same name, imported meanwhile
assert os.environ.get("CUDA_VISIBLE_DEVICES") == gpus
jobs = sweep("digits_mlp", *words, "optimizer.lr=1e-3,1e-2")
try:
    sweep("digits_mlp", "optimizer.lr=-1,1e-3")
except Exception as error:
    refused = str(error)
open("results.json", "w").write(json.dumps([one, jobs, refused]))
"""


@pytest.mark.slow
def test_train_and_sweep_return_plain_results(project: Path) -> None:
    (project / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=project, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    one, jobs, refused = json.loads((project / "results.json").read_text())
    assert set(one["metrics"]) >= {"val/acc", "test/acc"}
    assert (Path(one["job"]) / "result.json").is_file()
    facts = json.loads((Path(one["job"]) / "job.json").read_text())
    assert facts["command"][:3] == ["regente", "train", "digits_mlp"]
    assert [job["state"] for job in jobs] == ["done", "done"]
    assert [job["value"] for job in jobs] == [job["metrics"]["val/acc"] for job in jobs]
    assert "optimizer.lr=-1" in refused
