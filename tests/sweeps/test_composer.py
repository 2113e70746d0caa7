"""The configs of a sweep's jobs are those of single runs, whatever the job before set."""

from pathlib import Path

import pytest

from regente.sweeps.composer import Composer
from regente.training.prepare import compose

OWN = """
from pytorch_lightning import LightningModule
class Alone(LightningModule):
    def __init__(self, model): ...
class Usual(LightningModule):
    def __init__(self, model, optimizer): ...
"""


def test_a_job_inherits_nothing_of_the_one_before(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "own_tasks.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(project))
    composer = Composer("digits_mlp")
    for values in (
        ["test=false", "test=true"],
        ["task._target_=own_tasks.Alone", "task._target_=own_tasks.Usual"],
        ["trainer.strategy=ddp_spawn", "trainer.strategy=auto"],
    ):
        nodes = [composer.compose([value]).node for value in values]
        assert nodes == [compose("digits_mlp", [value]).node for value in values]
    nodes = [composer.compose([f"test={value}"]).node for value in ("false", "true")]
    assert [node.trainer.get("limit_test_batches") for node in nodes] == [0, None]
