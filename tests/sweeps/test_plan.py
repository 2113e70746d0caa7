"""Which sweepers and launchers are those of Hydra itself, and which files the identity of a job holds."""

from pathlib import Path

import pytest

from regente.config.compose import compose
from regente.sweeps.identity import users_files


@pytest.mark.parametrize("kind", ["sweeper", "launcher"])
def test_the_basic_sweeper_and_launcher_are_recognised_by_their_package(kind: str) -> None:
    hydra = compose("digits_mlp", [f"hydra/{kind}=basic"]).hydra
    assert hydra.runtime.choices[f"hydra/{kind}"] == "basic"
    assert str(hydra[kind]._target_).startswith("hydra.")


def test_packages_outside_of_the_environment_are_not_the_users_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("mine", "dist-packages"):
        (tmp_path / folder).mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    (tmp_path / "dist-packages/their_library.py").write_text("class Base: ...")
    own = tmp_path / "mine/my_identity_parts.py"
    own.write_text("from their_library import Base\nclass Net(Base): ...")
    assert users_files("my_identity_parts.Net") == [own]
