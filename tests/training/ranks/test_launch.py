"""A job in processes of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regente.config.compose import compose
from regente.jobs.job import freeze
from regente.training import launch


def test_a_process_that_is_killed_is_said_to_be(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = compose("digits_mlp", ["tracking=none"]).yaml()
    job = freeze(text, project / "runs", experiment="e", overrides=[], command=[], choices={})
    dies = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(
        launch,
        "start_program",
        lambda name, words, env: subprocess.Popen([sys.executable, "-c", dies], start_new_session=True),
    )
    assert launch.launch(job, {"devices": 1}) == 128 + signal.SIGKILL
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{job.path}: its process was killed by SIGKILL") and "regente resume" in line
