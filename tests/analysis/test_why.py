"""`regente why`: planted differences are named first."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regente.analysis.comparison import compare
from regente.analysis.why import Explanation, explain
from regente.errors import ConfigError
from regente.jobs.job import open_job, read_json, write_json
from regente.tracking import provenance
from tests.analysis.conftest import write_run

MODEL = "class Net:\n    size = 3\n"
SETTINGS: dict[str, Any] = {"model": {"_target_": "nets.Net"}, "optimizer": {"lr": 0.1}}
STEPS = [
    {"step": 2, "losses": [2.5, 2.0], "weights": "a"},
    {"step": 4, "losses": [1.5, 1.0], "weights": "b"},
    {"step": 4, "epoch": 1, "metrics": {"val/acc": 0.5}, "weights": "b"},
]


def trace(path: Path, *losses: float, weights: str = "other") -> None:
    """The trace of a run whose last losses are these."""
    steps = json.loads(json.dumps(STEPS))
    every = [*steps[0]["losses"], *steps[1]["losses"]]
    every[len(every) - len(losses) :] = losses
    steps[0]["losses"], steps[1]["losses"] = every[:2], every[2:]
    for line in steps if losses else []:
        line["weights"] = weights if line["step"] == 4 or len(losses) > 1 else line["weights"]
    (path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))


def journal(path: Path, *lines: dict[str, Any]) -> None:
    (path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(project: Path, name: str, seed: int = 0, lr: float = 0.1, value: float = 0.5, **more: Any) -> Path:
    """A finished run with all that a run records."""
    settings = {**SETTINGS, "optimizer": {"lr": lr}, **more}
    path = write_run(project / "runs" / "exp", seed, value, name=name, **settings)
    hardware = {"cpu": "EPYC", "cores_usable": 2, "python": "3.11.7"}
    code = provenance.code(project)
    facts = {"code": code.facts(), "hardware": hardware, "packages": ["numpy==2.0", "six==1", "torch==2.7"]}
    write_json(path / "provenance.json", facts)
    (path / "changes.patch").write_text(code.patch)
    write_json(path / "torch.json", {"torch": "2.7", "threads": 2})
    write_json(path / "data.json", {"name": "D", "source": "d", "digest": "d1", "splits": {"train": 10}})
    journal(path, {"kind": "start", "params": {}}, {"kind": "metrics", "step": 3, "values": {}})
    trace(path)
    return path


@pytest.fixture
def repository(project: Path) -> Path:
    (project / "nets.py").write_text(MODEL)
    (project / "README.md").write_text("read me\n")
    (project / ".gitignore").write_text("runs\ncache\n")
    git(project, "init", "-q", ".")
    commit(project)
    return project


def git(project: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=project, check=True)


def commit(project: Path) -> None:
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "more")


def why(project: Path, tmp: Path, *names: str) -> Explanation:
    tmp.mkdir()
    return explain(names[0], names[1] if len(names) > 1 else None, project, tmp)


def change(file: str, **values: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        write_json(path / file, {**read_json(path / file), **values})

    return apply


def resume(path: Path) -> None:
    journal(path, *map(json.loads, (path / "journal.jsonl").read_text().splitlines()), {"kind": "resume"})


PLANTED: dict[str, tuple[dict[str, Any], Callable[[Path], None], tuple[float, ...], str]] = {
    "one key": ({"lr": 0.2}, lambda _: None, (1.9, 1.4, 0.9), "optimizer.lr: 0.1 | 0.2"),
    "package": (
        {}, change("provenance.json", packages=["numpy==2.0", "six==1", "torch==2.8"]), (2.0,), "torch: 2.7 | 2.8",
    ),
    "data": ({}, change("data.json", digest="d2"), (2.0,), "data digest: d1 | d2"),
    "threads": ({}, change("torch.json", threads=4), (1.0000001,), "threads: 2 | 4"),
    "seed": ({"seed": 1}, lambda _: None, (2.6, 2.0, 1.5, 1.0), "seed: 0 | 1"),
    "resumed": ({}, resume, (), "resumed: not | 1 time, first after step 3"),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_the_only_one_that_is_named(
    planted: str, repository: Path, tmp_path: Path
) -> None:
    settings, apply, losses, expected = PLANTED[planted]
    run(repository, "a")
    other = run(repository, "b", **settings)
    apply(other)
    trace(other, *losses)
    found = why(repository, tmp_path / "s", "a", "b")
    assert [f"{each.name}: {each.text}" for each in found.causes] == [expected]
    assert f"nothing differs but {expected}" in list(found.lines())
    assert found.unknown == []
    assert (found.parting is None) == (not losses)


def test_two_runs_of_the_same_differ_in_nothing(repository: Path, tmp_path: Path) -> None:
    run(repository, "a")
    run(repository, "b", tracking={"tags": "x"})
    found = why(repository, tmp_path / "s", "a", "b")
    assert list(found.lines())[2:] == [
        "nothing differs in config, data, code, packages and machine",
        "also other, without an effect on a step: tracking.tags",
        "traces: equal to the bit at all 7 common points",
    ]
    with pytest.raises(ConfigError, match="is both runs; name another one: regente why A B"):
        why(repository, tmp_path / "t", "a", "a")


def test_code_is_compared_by_commits_and_patches(repository: Path, tmp_path: Path) -> None:
    run(repository, "first")
    (repository / "nets.py").write_text(MODEL.replace("3", "4"))
    (repository / "README.md").write_text("read it\n")
    (repository / "zoo.py").write_text("x = 1\n")
    (repository / "a.py").write_text("x = 1\n")
    run(repository, "uncommitted")
    commit(repository)
    run(repository, "committed")
    text = ["nets.py: +1 -1 lines", "a.py: +1 -0 lines", "zoo.py: +1 -0 lines"]
    for number, later in enumerate(("uncommitted", "committed")):
        found = why(repository, tmp_path / str(number), "first", later)
        assert [f"{each.name}: {each.text}" for each in found.causes] == text
        assert [each.name for each in found.differences if each.kind == "records"] == ["README.md"]
    assert why(repository, tmp_path / "x", "uncommitted", "committed").differences == []
    (repository / "nets.py").write_text(MODEL.replace("3", "5"))
    run(repository, "again")
    for number, earlier in enumerate(("uncommitted", "committed")):
        found = why(repository, tmp_path / f"y{number}", earlier, "again")
        assert [f"{each.name}: {each.text}" for each in found.causes] == text[:1]
    change("provenance.json", code={"commit": "--output=evil", "patch": ""})(repository / "runs/exp/first")
    found = why(repository, tmp_path / "z", "first", "again")
    assert ("commit", "code") in [(each.name, each.kind) for each in found.causes]
    assert not (repository / "evil").exists()


def test_the_traces_tell_which_of_several_causes_comes_first(repository: Path, tmp_path: Path) -> None:
    run(repository, "a", model={"_target_": "nets.Net", "size": 1})
    other = run(repository, "b", lr=0.2, model={"_target_": "nets.Net", "size": 2})
    change("torch.json", threads=4)(other)
    trace(other, 2.6, 2.0, 1.5, 1.0)  # already the first loss
    assert [each.name for each in why(repository, tmp_path / "1", "a", "b").causes] == [
        "model.size", "optimizer.lr", "threads",
    ]  # fmt: skip
    trace(other, 1.9, 1.4, 0.9)
    found = why(repository, tmp_path / "2", "a", "b")
    assert found.causes[0].name == "optimizer.lr"
    assert list(found.lines())[-1] == (
        "traces: equal to the bit up to step 1; they part at step 2: loss 2.0 | 1.9"
    )
    trace(other, 1.0000001)
    found = why(repository, tmp_path / "3", "a", "b")
    assert found.causes[0].name == "threads"
    assert list(found.lines())[-1].endswith("loss 1.0 | 1.0000001, which is rounding")


def test_another_option_stands_for_its_settings_and_one_run_is_compared_with_the_best(
    repository: Path, tmp_path: Path
) -> None:
    run(repository, "a", value=0.4, data={"num_classes": 10}, model={"n": "${data.num_classes}"})
    best = run(repository, "b", value=0.6, data={"num_classes": 2}, model={"n": "${data.num_classes}"})
    facts = read_json(best / "job.json")
    for choices, names in (
        (facts["choices"], ["data.num_classes"]),
        ({**facts["choices"], "model": "cnn"}, ["data.num_classes", "model"]),
    ):
        write_json(best / "job.json", {**facts, "choices": choices})
        found = why(repository, tmp_path / str(len(names)), "a")
        assert found.b == open_job(best)
        assert [each.name for each in found.causes] == names
    with pytest.raises(ConfigError, match="is the best run of its experiment"):
        why(repository, tmp_path / "x", "b")
    for file in ("provenance.json", "data.json", "trace.jsonl", "changes.patch"):
        (best / file).unlink()
    found = why(repository, tmp_path / "y", "a", "b")
    assert found.unknown == ["code", "packages", "hardware", "data"]
    assert "cannot be compared" in list(found.lines())[-2]


def test_compare_says_where_the_code_of_its_rows_differs(repository: Path) -> None:
    def notes() -> str:
        return " ".join(compare(["exp"], repository).notes())

    run(repository, "a", seed=0)
    (repository / "README.md").write_text("read more\n")  # no code
    run(repository, "b", seed=1)
    assert "different code" not in notes()
    (repository / "nets.py").write_text(MODEL + "x = 1\n")
    run(repository, "c", lr=0.2)
    assert "rows were made by runs of different code; what changed: regente why runs/exp/" in notes()
    run(repository, "d", seed=2)
    assert "1 row holds runs of different code; what changed: regente why runs/exp/" in notes()
