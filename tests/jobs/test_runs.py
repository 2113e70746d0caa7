"""Which run a name means."""

import json
import math
import shutil
import time
from pathlib import Path

import pytest

from regente.errors import CheckpointError, RegenteError, TrackingError
from regente.jobs.job import freeze
from regente.jobs.runs import find, find_job, job_names, names

FACTS = {"overrides": [], "command": ["regente", "train"]}


def job(
    project: Path,
    experiment: str,
    name: str,
    run_id: str = "",
    best: str | None = "a.ckpt",
    metrics: dict[str, float] | None = None,
    data: str = "digits",
) -> Path:
    """A job directory as a run leaves it; unfinished without `best`."""
    choices = {"data": data}
    made = freeze(
        "seed: 0\n",
        project / "runs" / experiment,
        name,
        experiment=experiment.partition("/")[0],
        choices=choices,
        **FACTS,
    )
    facts = json.loads((made.path / "job.json").read_text())
    (made.path / "job.json").write_text(
        json.dumps(facts | {"created": name, "order": 0})
    )  # so that the order is known
    (made.path / "recorded.json").write_text(json.dumps({"run_id": run_id or None}))
    if best:
        result = {"best_checkpoint": f"/elsewhere/{best}", "metrics": metrics or {}}
        monitor = {"metric": "val/loss" if "val/loss" in result["metrics"] else "val/acc"}
        monitor["mode"] = "min" if monitor["metric"] == "val/loss" else "max"
        (made.path / "result.json").write_text(json.dumps(result | {"monitor": monitor}))
    return made.path


def test_a_name_is_a_directory_latest_an_experiment_or_the_start_of_an_id(project: Path) -> None:
    first, last = job(project, "a", "2026-1", "abc111"), job(project, "a", "2026-3", "abd222")
    other = job(project, "b", "2026-2", "c0ffee")
    job(project, "a", "2026-4", "fff", best=None)
    within = job(project, "b/sweep-1", "2026-0", "ddd")
    names = {
        "runs/a/2026-1": first, str(first): first, "latest": last, "a": last, "b": other,
        "abc": first, "abd222": last, "c": other, "d": within, "2026-1": first, "b:latest": other,
    }  # fmt: skip
    assert {name: find(name, project).job.path for name in names} == names


def test_latest_is_the_run_that_was_made_last_when_the_clock_has_gone_back(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze("seed: 0\n", project / "runs/a", "z", experiment="a", choices={}, **FACTS)
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2000, 1, 1, 0, 0, 0, 5, 1, 0)))
    later = freeze("seed: 0\n", project / "runs/b", experiment="b", choices={}, **FACTS)
    assert later.path.name.startswith("20000101-")
    assert find_job("latest", project) == later
    (project / "runs/.order").write_text("[")  # damaged: the clock alone counts
    freeze("seed: 0\n", project / "runs/c", experiment="c", choices={}, **FACTS)
    assert find_job("latest", project) == later


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ab", r"run ab: 2 runs begin with it; write more of it: abc111, abd222"),
        ("nope", r"run nope: no such run here; there is: latest, runs/a/2026-2, runs/a/2026-1"),
        ("", r"no such run here"),
        ("xyz", r"no such run here; there is: latest, .*; a:best"),
        ("lastest", r"no such run here; did you mean latest\? there is: latest"),
        ("a:worst", r"no such run here; did you mean a\? there is: latest"),
        ("best", r"run best: no run has a val/acc"),
        ("torn", r"run torn: none of 1 has finished"),
        ("runs/torn/2026-9", r"it has not finished: no runs/torn/2026-9/result.json"),
    ],
)
def test_a_name_of_several_runs_or_none_is_answered_with_what_there_is(
    name: str, said: str, project: Path
) -> None:
    job(project, "a", "2026-1", "abc111")
    job(project, "a", "2026-2", "abd222")
    job(project, "torn", "2026-9", "eee", best=None)
    with pytest.raises(TrackingError, match=said) as refusal:
        find(name, project)
    assert "\n" not in str(refusal.value)


def test_the_best_is_that_of_the_monitored_metric_in_its_direction(project: Path) -> None:
    best = job(project, "a", "2026-1", metrics={"val/acc": 0.9})
    job(project, "a", "2026-2", metrics={"val/acc": math.nan})
    job(project, "a", "2026-3", metrics={"val/acc": 0.8})
    within = job(project, "b/sweep-1", "2026-4", metrics={"val/acc": 0.95})
    assert [find(name, project).job.path for name in ("a:best", "b:best", "best")] == [best, within, within]
    least = job(project, "c", "2026-5", metrics={"val/loss": 0.1}, data="text")
    job(project, "c", "2026-6", metrics={"val/loss": 0.2}, data="text")
    job(project, "c", "2026-7", metrics={"val/loss": math.nan}, data="text")
    assert find("c:best", project).job.path == least
    with pytest.raises(TrackingError, match="cannot be compared; choose one of: a:best, b:best, c:best"):
        find("best", project)


def test_a_run_that_has_not_finished_is_found_where_that_is_asked_for(project: Path) -> None:
    job(project, "a", "2026-1", "abc")
    torn = job(project, "a", "2026-2", "def", best=None)
    job(project, "a", "sweep-2027", "012", best=None)
    for name in ("latest", "a", "d", "2026-2"):
        assert find_job(name, project).path == torn
    assert find("latest", project).job.path != torn
    with pytest.raises(TrackingError, match="a sweep; it has no jobs yet"):
        find_job("012", project)


def test_a_name_of_two_directories_is_answered_with_both(project: Path) -> None:
    job(project, "a", "2026-1", "abc")
    job(project, "b", "2026-1", "def")
    with pytest.raises(TrackingError, match=r"2 runs have this name.*runs/a/2026-1, runs/b/2026-1"):
        find("2026-1", project)


def test_evaluations_are_no_runs(project: Path) -> None:
    path = job(project, "a", "2026-1", "abc")
    job(project, "a/2026-1", "evaluation-2026-2", "def")
    assert find("latest", project).job.path == path == find(str(path), project).job.path
    with pytest.raises(TrackingError, match="no such run"):
        find("def", project)


def test_names_to_complete_are_those_that_are_understood(project: Path) -> None:
    job(project, "a", "2026-1", metrics={"val/acc": 0.5})
    job(project, "b", "2026-2", best=None)
    assert names(project) == ["latest", "best", "a", "a:best", "runs/a/2026-1"]
    assert {find(name, project).job.path.name for name in names(project)} == {"2026-1"}


def test_tab_offers_runs_to_go_on_with_finished_or_not(project: Path) -> None:
    job(project, "a", "2026-1", metrics={"val/acc": 0.5})
    job(project, "b", "2026-2", best=None)
    job(project, "c", "sweep-1", best=None)
    job(project, "c/sweep-1", "2026-3")
    assert job_names(project) == [
        "latest", "a", "b", "c", "runs/a/2026-1", "runs/b/2026-2", "runs/c/sweep-1/2026-3",
    ]  # fmt: skip


def test_among_a_thousand_runs_the_best_is_found(project: Path) -> None:
    for number in range(50):
        made = job(project, "a", f"2026-{number:04d}", f"{number:04x}aa", metrics={"val/acc": number / 1000})
        for copy in range(20):
            shutil.copytree(made, made.with_name(f"{made.name}-{copy}"))
    assert find("best", project).score == 0.049


def test_a_sweep_is_answered_with_its_jobs(project: Path) -> None:
    job(project, "a", "sweep-1", "abc", best=None)
    job(project, "a/sweep-1", "2026-1", "def")
    with pytest.raises(TrackingError, match="a sweep; name one of its jobs: runs/a/sweep-1/2026-1"):
        find("abc", project)


def test_without_any_run_it_says_how_to_get_one(project: Path) -> None:
    for name in ("latest", "abc"):
        with pytest.raises(TrackingError, match="regente train makes one"):
            find(name, project)


def test_a_damaged_job_is_said_to_be(project: Path) -> None:
    path = job(project, "a", "2026-1")
    (path / "job.json").write_text("{")
    with pytest.raises(RegenteError, match="not a job directory"):
        find("latest", project)


def test_the_best_weights_are_found_where_the_job_directory_is_now(project: Path) -> None:
    path = job(project, "a", "2026-1")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: no such checkpoint"):
        _ = find("a", project).checkpoint
    (path / "checkpoints").mkdir()
    (path / "checkpoints/a.ckpt").touch()
    assert find("a", project).checkpoint == path / "checkpoints/a.ckpt"
    (path / "result.json").write_text(json.dumps({"best_checkpoint": None}))
    with pytest.raises(CheckpointError, match="kept no weights"):
        _ = find("a", project).checkpoint
    (path / "result.json").write_text(json.dumps({"best_checkpoint": None, "epochs": 0}))
    with pytest.raises(CheckpointError, match="has trained for no epoch"):
        _ = find("a", project).checkpoint
