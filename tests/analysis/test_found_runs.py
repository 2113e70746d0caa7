"""Whatever stands in the files of a run among others: compare, report, importance and why read it or leave it out."""

import csv
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from regente.analysis.comparison import Comparison, as_json, compare
from regente.analysis.document import FORMATS
from regente.analysis.formats import as_csv, as_html, as_latex, as_markdown, as_text
from regente.analysis.importance import importance
from regente.analysis.report import make_report
from regente.analysis.why import explain
from regente.cli.compare import compare as command
from regente.errors import RegenteError
from regente.jobs.job import read_json, write_json
from tests.analysis.conftest import write_run, write_sweep
from tests.analysis.test_report import Page
from tests.jobs.test_damaged_files import KEPT, changed, lines

JOURNAL = [{"kind": "start", "time": 1, "params": {"optimizer.lr": "0.1"}},
           {"kind": "metrics", "step": 1, "values": {"val/acc": 0.5, "train/loss": 1.0}},
           {"kind": "tags", "values": {"regente.device": "cpu"}}, {"kind": "resume", "number": 1}]  # fmt: skip
HUGE = int("9" * 400)  # more than a float takes
STATE = {"id": "d", "overrides": ["seed=2"], "state": "done", "directory": "d", "value": 0.5, "seconds": 1.0}


def arrays(**changes: Any) -> bytes:
    file = BytesIO()
    found: dict[str, Any] = {"label": [0, 1, 1], "prediction": [0, 1, 0], "loss": [0.1, 0.2, 0.9]}
    np.savez(file, **{**found, "names": ["cat", "dog"], **changes})
    return file.getvalue()


@pytest.fixture(scope="module")
def sweep() -> Iterator[Path]:
    """A sweep of four runs; the last one is that of somebody else."""
    with TemporaryDirectory() as folder:
        path = write_sweep(Path(folder) / "runs/x/sweep-1", {})
        for name, seed, lr in [("a", 1, 0.1), ("b", 2, 0.1), ("c", 1, 0.2), ("d", 2, 0.2)]:
            job = write_run(path, seed, 0.5 + lr + seed / 100, name=name, optimizer={"lr": lr}, note="n",
                            metrics={"test/acc": 0.5}, swept=["optimizer.lr", "seed"])  # fmt: skip
            (job / "journal.jsonl").write_bytes(lines(*JOURNAL))
            (job / "trace.jsonl").write_bytes(
                lines({"step": 1, "losses": [lr], "weights": "a", "metrics": {"val/acc": lr}})
            )
            (job / "test.npz").write_bytes(arrays())
            write_json(
                job / "data.json", {"name": "D", "source": "s", "digest": "d1", "splits": {"train": 10}}
            )
            code = {"commit": name * 40 if name in "ab" else "a" * 40, "patch": name}
            write_json(
                job / "provenance.json", {"code": code, "packages": [f"x=={name}"], "hardware": {"cpu": name}}
            )
            (job / "changes.patch").write_text(f"diff --git a/m.py b/m.py\n@@ -1 +1 @@\n-a\n+{name}\n")
            write_json(job / "process.json", {"host": "h", "boot": "b", "pid": 1, "started": "1"})
            write_json(job / "found.json", {"optimizer.lr": lr})
            write_json(job / "torch.json", {"threads": 1})
            (path / "states").mkdir(exist_ok=True)
            write_json(path / f"states/{name}.json", {**STATE, "id": name, "directory": name})
        queue = {
            "experiment": "x",
            "overrides": [],
            "swept": ["optimizer.lr", "seed"],
            "monitor": {"metric": "val/acc"},
        }
        queue |= {
            "total": 4,
            "jobs": {name: [f"seed={name}"] for name in "abcd"},
            "config_dirs": [],
            "pins": {},
        }
        write_json(path / "queue.json", {**queue, "signature": ""})
        yield path


def read_all(sweep: Path, project: Path) -> list[str]:
    """All that reads many runs, in all formats; what it says."""
    found = compare([str(sweep)], project)
    assert len(found.runs) >= 3 or found.damaged
    said = _formats(found)
    said += _formats(compare([str(sweep / "a"), str(sweep / "d")], project))
    found.more_seeds()
    said += importance(found.runs, found.metric, fast=True).lines()
    compare([], project)
    with TemporaryDirectory() as scratch:
        said += explain(str(sweep / "a"), str(sweep / "d"), project, Path(scratch)).lines()
    return said


def _formats(found: Comparison) -> list[str]:
    said = [*as_text(found, 3), as_csv(found), as_html(found, found.lines()), as_latex(found)]
    document = make_report(found, fast=True)
    said += [as_markdown(found), str(as_json(found)), *(form(document) for form in FORMATS.values())]
    for text in said:
        text.encode()
    return said


def check_content(sweep: Path, name: str, content: bytes) -> None:
    """Read the runs with this content of a file; afterwards the file is as before."""
    file, project = sweep / name, sweep.parents[2]
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        read_all(sweep, project)
    except RegenteError:
        pass
    finally:
        file.write_bytes(before)


FILES = ["d/job.json", "d/config.yaml", "d/result.json", "d/journal.jsonl", "d/trace.jsonl", "d/test.npz",
         "d/data.json", "d/provenance.json", "d/changes.patch",
         "queue.json", "job.json"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.timeout(60)
def test_any_content_of_a_file_is_read_or_its_run_left_out(
    name: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep.parents[2])
    whole = (sweep / name).read_bytes()
    check_content(sweep, name, whole)

    @settings(KEPT, max_examples=3)
    @given(changed(whole))
    def check(content: bytes) -> None:
        check_content(sweep, name, content)

    check()


def test_numbers_and_arrays_that_nothing_takes(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.parents[2])
    huge = [{"kind": "metrics", "step": step, "values": {"val/acc": HUGE}} for step in (HUGE, -HUGE, 1)]
    check_content(sweep, "d/journal.jsonl", lines(*JOURNAL, *huge))
    check_content(sweep, "d/trace.jsonl", lines({"step": HUGE, "losses": [HUGE], "metrics": {"a": HUGE}}))
    for change in (
        "lr: .nan",
        "lr: .inf",
        f"lr: {HUGE}",
        "lr: 2001-01-01",
        "lr: !!binary aGk=",
        "lr: {? [1] : 2}",
        "lr: [.nan]",
        "lr: !!set {a, b}",
        "lr: !!pairs [a: [1]]",
    ):
        config = (sweep / "d/config.yaml").read_text()
        check_content(sweep, "d/config.yaml", config.replace("lr: 0.2", change).encode())
    for jobs in ({"a" * 5000: []}, [1], 5, {"/etc/x": 1}):
        check_content(sweep, "queue.json", lines({"jobs": jobs}))
    for content in (b"PK", arrays()[:-9], arrays(label=["a", "b", "c"]), arrays(loss=["a", "b", "c"]),
                    arrays(names=np.zeros((2, 2))), arrays(names=np.full(2, 2**31, "u4").view("<U1")), arrays(names=b"x"),
                    arrays(label=np.zeros((), int), prediction=np.zeros((), int)), arrays(label=[0, 1, 10**12]),
                    arrays(prediction=[0.0, np.nan, np.inf]), arrays(label=[True, False, True])):  # fmt: skip
        check_content(sweep, "d/test.npz", content)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name",
    ["d/test.npz", "d/journal.jsonl", "d/trace.jsonl", "d/config.yaml", "d/changes.patch", "d/result.json"],
)
def test_a_file_that_is_a_pipe_a_device_or_a_link_is_not_read(
    name: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep.parents[2])
    file, kept = sweep / name, (sweep / name).read_bytes()
    victim = sweep.parents[2] / "victim"

    def said() -> list[str]:
        try:
            return read_all(sweep, sweep.parents[2])
        except RegenteError as error:
            return [str(error)]

    try:
        for make in (lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero")):
            file.unlink()
            make()
            assert said()  # and it ends
        linked, read = [], []
        for content in (kept, b""):
            victim.write_bytes(content)
            file.unlink()
            file.symlink_to(victim)
            linked.append(said())
            file.unlink()
            file.write_bytes(content)
            read.append(said())
        assert linked[0] == linked[1]  # whatever the link leads to
        assert read[0] != read[1]
    finally:
        file.unlink()
        file.write_bytes(kept)


EVIL = {
    "html": "</svg></script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "latex": "\\input{/etc/passwd}\\write18{x}$^^5cinput{x}",
    "markdown": "[x](javascript:alert(1)) ![x](http://evil.example) <b>\n# a heading\n| a | row |",
    "csv": "=cmd|' /C calc'!A0",
    "terminal": "\x1b[2J\u202e\nfake row  0.99",
}


@pytest.mark.parametrize("kind", EVIL)
def test_names_and_values_of_a_run_are_text_in_every_format(kind: str, project: Path) -> None:
    evil, runs = EVIL[kind], project / "runs/x"
    for seed, value in ((1, evil), (2, evil), (1, "plain"), (2, "plain")):
        path = write_run(runs, seed, 0.5 + seed / 10 + len(value) / 1e3, name=f"{len(value)}-{seed}", **{evil: {evil: value}},
                         monitor={"metric": f"val/{evil}", "mode": "max"}, choices={evil: value})  # fmt: skip
        (path / "journal.jsonl").write_bytes(
            lines({"kind": "metrics", "step": 1, "values": {f"val/{evil}": 0.5}})
        )
        (path / "test.npz").write_bytes(arrays(names=[evil, evil]))
        write_json(
            path / "provenance.json",
            {"code": {"commit": evil, "patch": evil}, "packages": [f"{evil}=={evil}"]},
        )
        write_json(path / "data.json", {"name": evil, "source": evil, "digest": evil, "splits": {evil: 1}})
        facts = read_json(path / "job.json")
        write_json(path / "job.json", {**facts, "experiment": evil, "overrides": [evil], "command": [evil]})
    found = compare(["x"], project)
    made = {form: run(form) for form in ("html", "md", "latex", "csv", "table")}
    document = make_report(found, fast=True)
    made |= {f"report{suffix}": form(document) for suffix, form in FORMATS.items()}
    for form in ("html", "report.html"):
        page = Page(made[form])
        assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
        assert not any(
            name.startswith("on") or name in ("src", "href") for _, attrs in page.tags for name in attrs
        )
    for form in ("latex", "report.tex"):
        assert not re.search(r"\\(input|write)|\^\^|(?<!\\)\$(?!\\pm)", made[form])
        assert not re.search(r"\\\\\s*[\[*]", made[form])  # an argument of the end of a row
    for form in ("md", "report.md"):
        text = re.sub(r"(?m)^    .*$", "", made[form])  # code
        assert not re.search(r"(?<!\\)[<\]`]|^# a|^\| a", text, re.MULTILINE), text
    rows = list(csv.reader(made["csv"].splitlines()))
    assert not any(cell.startswith(tuple("=+-@")) for row in rows for cell in row if not _is_number(cell))
    for form in ("md", "latex", "table", "report.html", "report.md", "report.tex"):
        assert not {"\x1b", "\u202e"} & set(made[form])
        assert not re.search(r"(?m)^(fake row|# a heading)", made[form])


def _is_number(cell: str) -> bool:
    with suppress(ValueError):
        return bool(float(cell)) or True
    return False


def run(form: str) -> str:
    """What the command prints."""
    ended = CliRunner().invoke(command, ["x", "--format", form], catch_exceptions=False)
    return ended.output
