"""The report: what it holds, and that nothing of a run is more than text in it."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from regente.analysis.comparison import compare
from regente.analysis.document import Code, Document, Section, Table, Text, to_html, to_latex, to_markdown
from regente.analysis.report import make_report
from regente.analysis.svg import Axis, confusion, parallel, slice_of
from regente.analysis.write_report import write
from regente.errors import ConfigError, MachineError
from regente.jobs.job import write_json
from tests.analysis.conftest import write_run

EVIL = "</title><script>x</script><b onload='y'>\"&\x1b[2J"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Tags that are closed in their order, and what is in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def sweep(project: Path, name: str = "exp", act: object = "relu") -> None:
    for lr in (0.1, 0.01):
        for seed in (1, 2, 3):
            path = write_run(project / "runs" / name, seed, 0.5 + lr + seed / 100, name=f"{lr}-{seed}",
                             metrics={"test/acc": 0.5}, optimizer={"lr": lr},
                             model={"act": act if lr == 0.1 else "tanh"})  # fmt: skip
            lines = [{"kind": "metrics", "step": step, "values": {"val/acc": 0.1 * step + seed / 50, "train/loss": 1 / step}}
                     for step in (1, 2, 3)]  # fmt: skip
            (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            write_json(
                path / "data.json", {"name": "D", "source": "d", "digest": "d1d2", "splits": {"train": 10}}
            )
            write_json(
                path / "provenance.json",
                {"code": {"commit": "abcdef0123456789", "patch": "x"}, "packages": []},
            )
            np.savez(path / "test.npz", label=[0, 1, 1], prediction=[0, 1, 0], names=["cat", str(act)])


def test_a_report_answers_question_result_curves_settings_cost_and_how_to_repeat_it(project: Path) -> None:
    sweep(project)
    document = make_report(compare(["exp"], project))
    assert [each.title for each in document.sections] == [
        "Question", "Result", "Curves", "Settings", "Confusion matrices", "Cost", "How to reproduce it",
    ]  # fmt: skip
    page = Page(to_html(document))
    text = " ".join(page.words)
    for expected in (
        "6 runs (6 done), which differ in optimizer.lr, model.act", "points for each seed", "0.6200",
        "abcdef012345+ changes.patch", "d1d2", "regente train exp seed=1", "9.0",
    ):  # fmt: skip
        assert expected in text, expected
    drawn = [each for each in page.named("svg") if each.get("role") == "img"]
    labels = [str(each["aria-label"]) for each in drawn]
    assert len(drawn) == 2 + 1 + 2 + 2  # curves, parallel coordinates, slices, confusion matrices
    assert labels[0].startswith("val/acc over the steps. lr=0.1 act=relu ends at")
    assert any("most often confused: 1 of relu predicted as cat" in each for each in labels)
    assert all(each.get("scope") in ("col", "row") for each in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table")) == 4
    assert not page.named("script") and not page.named("link")
    assert not any("src" in attrs or "href" in attrs for _, attrs in page.tags)
    assert "## How to reproduce it" in to_markdown(document)
    assert to_latex(document).count(r"\begin{longtable}") == 4


def test_what_comes_out_of_a_run_is_text_in_every_format(project: Path) -> None:
    sweep(project, act=EVIL)
    document = make_report(compare(["exp"], project))
    page = Page(to_html(document))
    assert not page.named("script") and not page.named("b")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "\x1b" not in to_html(document) + to_markdown(document) + to_latex(document)
    assert not re.search(r"(?<!\\)<", to_markdown(document))
    for name, content in (
        ("html", "&lt;b&gt;|"),
        ("md", r"\<b\>\|"),
        ("tex", r"\textless{}b\textgreater{}|"),
    ):
        cells = Document("t", [Section("s", [Table("c", ["h"], [["<b>|"]])])])
        made = {"html": to_html, "md": to_markdown, "tex": to_latex}[name](cells)
        assert content in made
    lines = Document("`_#", [Section("$x^2$", [Text("a_b % & \\input{x}"), Code(["```", "<x>", "a\nb"])])])
    assert r"\textbackslash{}input\{x\}" in to_latex(lines) and r"\$x\textasciicircum{}2\$" in to_latex(lines)
    assert "\n    ```\n    <x>\n    a b\n" in to_markdown(lines)


def test_damaged_files_of_a_run_leave_their_part_of_the_report_out(project: Path) -> None:
    sweep(project)
    for number, path in enumerate(sorted((project / "runs" / "exp").iterdir())):
        (path / "journal.jsonl").write_text('{"kind": "metrics", "step": "x", "values": 3}\n[]\n')
        (path / "test.npz").write_bytes(b"PK" if number % 2 else b"")
        (path / "provenance.json").write_text('{"code": 5}')
    titles = [each.title for each in make_report(compare(["exp"], project)).sections]
    assert titles == ["Question", "Result", "Settings", "Cost", "How to reproduce it"]


def test_figures_take_any_values() -> None:
    for column in (["a"], [1.0], [1, 1], [0.001, 1.0], ["[8]", "[16]"]):
        values = [0.5 + place for place in range(len(column))]
        assert "nan" not in slice_of("k", column, values, column and ["n"] * len(column), "m")
        assert "nan" not in parallel({"k": column}, values, "m", less_is_better=True)
    assert Axis.of([1e-4, 1e-1], 0, 3, of_setting=True)(1e-3) == pytest.approx(1)
    assert "no mistakes" in confusion("t", [[1, 0], [0, 0]], ["a", "b"])
    assert Axis.of([0.0, 1.0], 0, 1).ticks() == [0, 0.5, 1]


def test_a_report_is_written_or_refused_in_a_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(project)
    for out, error in (("r.doc", "unknown kind"), ("no/r.html", "there is no folder no")):
        with pytest.raises(ConfigError, match=error):
            write(["exp"], project, None, Path(out))
    for suffix in ("html", "md", "tex"):
        write(["exp"], project, None, Path(f"r.{suffix}"))
        assert Path(f"r.{suffix}").stat().st_size > 1000
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MachineError, match="needs Chromium or Chrome; install one"):
        write(["exp"], project, None, Path("r.pdf"))
