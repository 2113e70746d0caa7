"""Which sweepers and launchers are those of Hydra itself."""

import pytest

from regente.config.compose import compose


@pytest.mark.parametrize("kind", ["sweeper", "launcher"])
def test_the_basic_sweeper_and_launcher_are_recognised_by_their_package(kind: str) -> None:
    hydra = compose("digits_mlp", [f"hydra/{kind}=basic"]).hydra
    assert hydra.runtime.choices[f"hydra/{kind}"] == "basic"
    assert str(hydra[kind]._target_).startswith("hydra.")
