"""`regente cache`."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from regente.data.core.cache import build_once
from tests.conftest import Ended

Run = Callable[..., Ended]


@pytest.fixture
def kept(project: Path) -> Path:
    """Two folders of the cache, one of them not used for long, and half of a third one."""
    folder = project / "cache/regente"

    def make(draft: Path) -> None:
        (draft / "description.txt").write_text("two photos")
        (draft / "content").write_bytes(b"x" * 2_000_000)

    build_once(folder / "images/aaa1", make)
    build_once(folder / "features/bbb2", make)
    (folder / "features/ccc3.part").mkdir()
    old = time.time() - 40 * 86_400
    os.utime(folder / "images/aaa1/used", (old, old))
    return folder


@pytest.mark.usefixtures("kept")
def test_it_lists_size_age_and_last_use(regente: Run) -> None:
    ended = regente("cache")
    assert ended.code == 0, ended.err
    lines = {" ".join(line.split()) for line in ended.out.splitlines()}
    assert "features 2.0 MB bbb2 created just now, used just now two photos" in lines
    assert "images 2.0 MB aaa1 created just now, used 40 d ago two photos" in lines
    assert any("ccc3" in line and "incomplete" in line for line in lines)


def test_it_clears_what_is_named_or_old_and_leaves_what_is_being_made(regente: Run, kept: Path) -> None:
    assert "1 deleted, 2.0 MB" in regente("cache", "clear", "all", "--older-than", "30").out
    assert not (kept / "images/aaa1").exists()
    with FileLock(kept / "features/ccc3.lock"):
        assert "features ccc3 is kept: a run is building it" in regente("cache", "clear", "features").out
    assert not (kept / "features/bbb2").exists()
    assert regente("cache", "clear", "cc").code == 0
    assert not (kept / "features/ccc3.part").exists()
    assert "nothing is cached in" in regente("cache").out


def test_a_name_that_means_nothing_is_said(regente: Run, project: Path) -> None:
    ended = regente("cache", "clear", "photos")
    assert ended.code == 2
    assert ended.lines == ["cache photos: no such entry; there is: all, images, features"]


@pytest.mark.usefixtures("kept")
def test_what_is_used_again_is_no_longer_old(regente: Run, project: Path) -> None:
    build_once(project / "cache/regente/images/aaa1", lambda draft: pytest.fail("it is there"))
    assert "0 deleted" in regente("cache", "clear", "all", "--older-than", "30").out
