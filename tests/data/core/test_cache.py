"""What is made once."""

import threading
import time
from pathlib import Path

import pytest

from regente.data.core.cache import build_once


def test_of_two_at_once_one_makes_and_the_other_waits_and_takes_it(tmp_path: Path) -> None:
    made = []

    def make(draft: Path) -> None:
        made.append(draft)
        time.sleep(0.2)
        (draft / "content").write_text("whole")

    found: list[str] = []
    target = tmp_path / "cache" / "key"
    threads = [
        threading.Thread(target=lambda: found.append((build_once(target, make) / "content").read_text()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["whole", "whole"]
    assert len(made) == 1


def test_what_is_interrupted_is_not_taken_for_whole(tmp_path: Path) -> None:
    target = tmp_path / "key"

    def interrupted(draft: Path) -> None:
        (draft / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(target, interrupted)
    assert not target.exists()
    (tmp_path / "key.part").mkdir()  # as a kill leaves it
    (tmp_path / "key.part" / "half").touch()
    build_once(target, lambda draft: (draft / "content").touch())
    assert {file.name for file in target.iterdir()} == {"content", "used", "checksums.json"}
    assert not (tmp_path / "key.part").exists()
