"""What `pip install .` installs, and that the two commands agree with the checkout."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_configs_and_experiments_and_works_without_the_checkout(tmp_path: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", str(tmp_path), str(CHECKOUT)],
        check=True, timeout=120, env={**os.environ, "VIRTUAL_ENV": sys.prefix},
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
        timeout=120,
    )
    probe = (
        "import regente, sys; from regente.cli.main import main; assert 'site' in regente.__file__; main()"
    )
    env = {**os.environ, "PYTHONPATH": str(target)}
    listed = subprocess.run(
        [sys.executable, "-c", probe, "list"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "digits_cnn" in listed.stdout
    checked = subprocess.run(
        [sys.executable, "-c", probe, "check", "mnist_cnn"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(CHECKOUT / "src").parts)
        for path in (CHECKOUT / "src").rglob("__init__.py")
    }
    assert listed == found | {"regente.conf", "regente.experiments"}


def test_the_pins_name_no_registry_and_carry_hashes() -> None:
    text = (CHECKOUT / "requirements.txt").read_text()
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")
