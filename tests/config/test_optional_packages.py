"""Sweeps that need a package which is not there."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.errors import MachineError
from regente.sweeps.ray import Ray
from regente.sweeps.slurm import Slurm
from tests.sweeps.test_search import LR, search


def _config() -> dict[str, Any]:
    return resolve(compose("digits_mlp", []).node)


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("optuna", lambda: search(Path("runs/e/a"), LR)),
        ("ray", lambda: Ray(Path("runs/e/a"), _config())),
        ("submitit", lambda: Slurm(Path("runs/e/a"), _config(), cluster="local")),
    ],
)
def test_a_missing_package_is_named_with_how_to_get_it(
    package: str, make: Callable[[], object], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself takes for not installed
    with pytest.raises(MachineError) as raised:
        make()
    assert raised.value.exit_code == 3
    assert f"needs {package}, which is not installed; pip install {package}" in str(raised.value)
