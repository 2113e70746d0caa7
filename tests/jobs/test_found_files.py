"""Files of a found job directory are read only where they are plain, small files."""

import json
import os
from pathlib import Path

import pytest

from regente.errors import RegenteError
from regente.jobs.found_files import is_plain, read_text
from regente.jobs.job import open_job, read_json
from regente.tracking.journal import Journal, read


@pytest.mark.timeout(20)
def test_pipes_links_devices_folders_and_large_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "zero", "folder", "missing"):
        with pytest.raises(OSError, match=r"regular|symbolic|No such"):
            read_text(tmp_path / name)
        assert read_json(tmp_path / name) == {}
    with pytest.raises(OSError, match="more than 4"):
        read_text(tmp_path / "secret", 4)
    assert read_json(tmp_path / "secret") == {"a": 1}


def test_what_is_or_holds_a_link_or_lies_elsewhere_is_not_shipped(tmp_path: Path) -> None:
    job = tmp_path / "job"
    (job / "folder").mkdir(parents=True)
    (job / "folder/a.txt").write_text("a")
    (tmp_path / "secret").write_text("s")
    assert is_plain(job / "folder", job) and is_plain(job / "folder/a.txt", job)
    (job / "folder/link").symlink_to(tmp_path / "secret")
    refused = ("folder", "folder/link", "../secret", "missing")
    assert not any(is_plain(job / name, job) for name in refused)


@pytest.mark.timeout(20)
def test_a_journal_that_is_a_pipe_or_a_link_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(OSError, match="no regular file"):
        read(tmp_path / "journal.jsonl", 0)
    with pytest.raises(OSError, match=r"No such device|regular"):
        Journal(tmp_path / "journal.jsonl")
    (tmp_path / "job.json").symlink_to("/dev/zero")
    with pytest.raises(RegenteError, match="not a job directory"):
        open_job(tmp_path)


def test_lines_of_a_journal_that_are_no_lines_are_passed_over(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    lines = ['{"kind":"a"}', "[]", "1", "null", '{"kind":1}', '"x"', deep, json.dumps({"kind": "b"})]
    (tmp_path / "journal").write_text("\n".join(lines) + "\n")
    found, offset = read(tmp_path / "journal", 0)
    assert [line["kind"] for line in found] == ["a", "b"]
    assert offset == (tmp_path / "journal").stat().st_size
