"""Tab in a real bash, on a terminal."""

import os
import pty
import shutil
import sys
from pathlib import Path

import pytest

from regente.cli.completion import complete
from tests.training.test_fit import until

pytestmark = pytest.mark.slow  # not in `make quick`

SHELL = shutil.which("bash")


@pytest.mark.skipif(SHELL is None, reason="no bash here")
@pytest.mark.parametrize(
    ("typed", "then"),
    [
        ("regente train mni", "regente train mnist_cnn "),
        ("regente train model=ml", "regente train model=mlp "),
        ("regente train optimizer.l", "regente train optimizer.lr=\x07"),  # and no blank
        ("regente train trainer.on_nan=sk", "regente train trainer.on_nan=skip_step "),
    ],
)
def test_bash_goes_on_with_the_word(typed: str, then: str, project: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(project)
        os.environ |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PS1": "$ ",
            "TERM": "dumb",
        }
        os.execv(str(SHELL), ["bash", "--norc", "--noprofile", "-i"])
    os.set_blocking(terminal, False)
    seen = ""

    def shows(text: str) -> bool:
        nonlocal seen
        try:
            seen += os.read(terminal, 65536).decode(errors="replace")
        except BlockingIOError:
            return False
        return text in seen.replace("\x07\x07", "\x07")

    try:
        os.write(terminal, b'eval "$(_REGENTE_COMPLETE=bash_source regente)"; echo rea""dy\n')
        until(lambda: shows("ready"))
        os.write(terminal, typed.encode() + b"\t" + b"\t" * then.endswith("\x07"))
        until(lambda: shows(then))
        assert f"$ {then}" in seen.replace("\x07\x07", "\x07")
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("trainer.precision=bf", {"trainer.precision=bf16", "trainer.precision=bf16-mixed"}),
        ("trainer.matmul_precision=", {"trainer.matmul_precision=highest", "trainer.matmul_precision=null"}),
        ("optimizer.amsgrad=", {"optimizer.amsgrad=true", "optimizer.amsgrad=false"}),
        ("monitor.mode=", set()),
        ("nothing.there=", set()),
    ],
)
def test_values_that_a_class_names_one_by_one(typed: str, offers: set[str], project: Path) -> None:
    found = set(complete(["digits_mlp"], typed))
    assert offers <= found
    assert offers or not found
