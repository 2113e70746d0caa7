"""Which run a name means."""

import json
from pathlib import Path

import pytest

from regente.errors import CheckpointError, RegenteError, TrackingError
from regente.job import freeze
from regente.runs import find

FACTS = {"overrides": [], "command": ["regente", "train"], "choices": {}}


def job(
    project: Path, experiment: str, name: str, run_id: str = "", best: str | None = "a.ckpt", **facts: object
) -> Path:
    """A job directory as a run leaves it; unfinished without `best`."""
    made = freeze("seed: 0\n", project / "runs" / experiment, name, experiment=experiment, **FACTS, **facts)
    facts = json.loads((made.path / "job.json").read_text())
    (made.path / "job.json").write_text(json.dumps(facts | {"created": name}))  # so that the order is known
    (made.path / "recorded.json").write_text(json.dumps({"run_id": run_id or None}))
    if best:
        (made.path / "result.json").write_text(json.dumps({"best_checkpoint": f"/elsewhere/{best}"}))
    return made.path


def test_a_name_is_a_directory_latest_an_experiment_or_the_start_of_an_id(project: Path) -> None:
    first, last = job(project, "a", "2026-1", "abc111"), job(project, "a", "2026-3", "abd222")
    other = job(project, "b", "2026-2", "c0ffee")
    job(project, "a", "2026-4", "fff", best=None)
    within = job(project, "b/sweep-1", "2026-0", "ddd")
    names = {
        "runs/a/2026-1": first, str(first): first, "latest": last, "a": last, "b": other,
        "abc": first, "abd222": last, "c": other, "d": within,
    }  # fmt: skip
    assert {name: find(name, project).job.path for name in names} == names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ab", r"run ab: 2 runs begin with it; write more of it: abc111, abd222"),
        ("nope", r"run nope: no such run here; there is: latest, runs/a/2026-2, runs/a/2026-1"),
        ("", r"no such run here"),
        ("torn", r"run torn: none of 1 has finished"),
        ("runs/torn/2026-9", r"it has not finished, there is no runs/torn/2026-9/result.json"),
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
