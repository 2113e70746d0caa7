"""`regente check --dead-keys`: a setting that nobody reads is found, and no other one is called so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regente.analysis.dead_keys import dead_keys
from regente.errors import ConfigError
from tests.conftest import Ended

Run = Callable[..., Ended]
OWN = """
from torch import nn

class Own(nn.Module):
    def __init__(self, num_classes, width=16, smooth=0.1):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.layers(x)
"""


def test_a_setting_that_nobody_reads_is_found_and_no_other(regente: Run, project: Path) -> None:
    (project / "own.py").write_text(OWN)
    (project / "conf" / "model").mkdir(parents=True)
    (project / "conf" / "model" / "own.yaml").write_text(
        "_target_: own.Own\nnum_classes: ${data.num_classes}\nwidth: 16\n"
    )
    words = ["model=own", "model.smooth=0.3", "model.width=8", "seed=0", "trainer.max_epochs=3"]
    ended = regente("check", "digits_mlp", *words, "--dead-keys")
    assert ended.out.splitlines() == [
        "model=own: needed: without it the config cannot run",
        "model.smooth=0.3: dead: two steps are equal to the bit without this setting",
        "model.width=8: changes loss at step 1",
        "seed=0: is the value without it, too",
        "trainer.max_epochs=3: not tested: two steps cannot show it",
    ]
    assert (ended.code, ended.err) == (1, "")
    assert not (project / "runs").exists() and not (project / "mlflow.db").exists()
    with pytest.raises(ConfigError, match="give some"):
        next(dead_keys("digits_mlp", []))
