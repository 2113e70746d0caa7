"""What the page of a run says first in MLflow."""

import json
from pathlib import Path
from typing import Any

import pytest

from regente.jobs.job import Job, freeze, open_job
from regente.jobs.result import read_result
from regente.tracking.description import BEGIN, END, LIMIT, TAG, describe, merged, rank_jobs, standing
from regente.tracking.store import all_runs, open_store

# MLflow 3.17's own use of SQLAlchemy 2.1, November 2026
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
MONITOR = {"metric": "val/acc", "mode": "max"}


def finished(folder: Path, name: str, value: float, data: str = "digits", **changes: Any) -> Job:
    facts = {"experiment": "e", "overrides": [f"a={value}"], "command": ["regente", "train"]}
    job = freeze("seed: 0\n", folder, name, choices={"data": data}, **facts)
    result = {
        "metrics": {"val/acc": value}, "monitor": MONITOR, "best_epoch": 1, "best_checkpoint": None, "epochs": 2,
        "pruned": False, "seconds": 1.0, "peak_megabytes": 1.0, "samples_per_second": 1.0,
    }  # fmt: skip
    (job.path / "result.json").write_text(json.dumps(result | changes))
    return open_job(job.path)


def test_a_description_is_replaced_and_what_people_wrote_there_is_kept() -> None:
    first = merged("one\n\ntwo", "")
    assert merged("three", first) == f"{BEGIN}\n\nthree\n\n{END}"
    own = f"before\n\n{first}\n\nafter\n"
    assert merged("three", own) == f"before\n\n{BEGIN}\n\nthree\n\n{END}\n\nafter"
    assert merged("three", "only mine").endswith(f"{END}\n\nonly mine")
    assert merged("three", f"{BEGIN}\n\ncut by the sto") == f"{BEGIN}\n\nthree\n\n{END}"
    long = merged("line\n" * LIMIT, "mine " * 100)
    assert len(long) <= LIMIT
    assert long.endswith(("mine " * 100).strip())


def test_a_run_says_how_it_stands_among_comparable_runs_of_its_experiment(project: Path) -> None:
    folder = project / "runs" / "e"
    worst, best = finished(folder, "worst", 0.5), finished(folder, "best_one", 0.75)
    finished(folder, "pruned", 0.9, pruned=True)
    finished(folder, "minimum", 0.9, monitor={"metric": "val/acc", "mode": "min"})
    finished(folder, "other_data", 0.9, data="mnist")
    finished(folder / "sweep-1", "swept", 0.625)
    (folder / "sweep-1" / "job.json").write_text("{}")
    state = {"run_id": "ab12", "experiment_id": "7"}
    (best.path / "recorded.json").write_text(json.dumps(state))
    place = "val/acc **0.5**: place 3 of 3 runs of e when it ended"
    link = r"[best\_one](#/experiments/7/runs/ab12?workflowType=machine_learning)"
    assert standing(worst, read_result(worst.path)) == f"{place}; best 0.75 ({link})"
    assert standing(best, read_result(best.path)) == "val/acc **0.75**: place 1 of 3 runs of e when it ended"
    assert standing(best, read_result(best.path) | {"metrics": {}}) == ""
    elsewhere = finished(project / "moved", "there", 0.6)
    assert standing(elsewhere, read_result(elsewhere.path)) == "val/acc **0.6**"
    parts = describe(worst, read_result(worst.path), "a try").split("\n\n")
    assert parts[1:5] == ["a try", "val/acc **0.5** after epoch 2 of 2", "Experiment `e`, with", "- `a=0.5`"]


def test_the_jobs_of_a_sweep_are_ranked_in_their_descriptions(project: Path, store: Path) -> None:
    client, experiment = open_store("sqlite:///mlflow.db", project, "e")
    sweep = client.create_run(experiment).info.run_id
    (project / "runs/e/sweep-1").mkdir(parents=True)
    for name, content in {"queue.json": {}, "recorded.json": {"run_id": sweep, "experiment_id": "1"}}.items():
        (project / "runs/e/sweep-1" / name).write_text(json.dumps(content))
    for value in (0.5, 0.75, 0.625, 0.9):
        job = finished(project / "runs/e/sweep-1", f"job-{value}", value)
        note = merged(describe(job, read_result(job.path), ""), "my note")
        tags = {"mlflow.parentRunId": sweep, TAG: note} | ({"regente.pruned": "yes"} if value == 0.9 else {})
        run = client.create_run(experiment, run_name=f"a={value}", tags=tags).info.run_id
        client.log_metric(run, "best/val/acc", value)
        client.set_terminated(run)

    def described() -> dict[str, str]:
        rank_jobs(client, all_runs(client, experiment, f"tags.mlflow.parentRunId = '{sweep}'"), MONITOR)
        runs = all_runs(client, experiment, f"tags.mlflow.parentRunId = '{sweep}'")
        return {run.info.run_name: run.data.tags[TAG] for run in runs}

    found = described()
    firsts = {name: text.split("\n\n")[1] for name, text in found.items()}
    assert "a job of [a sweep](#/experiments/1/runs/" in firsts["a=0.9"]  # it was pruned
    assert firsts["a=0.75"].startswith("val/acc **0.75**: place 1 of 3 jobs of [its sweep](#/experiments/")
    assert "place 3 of 3" in firsts["a=0.5"]
    assert "; best 0.75 ([a=0.75](#/experiments/" in firsts["a=0.5"]
    assert all(text.endswith(f"`\n\n{END}\n\nmy note") for text in found.values())
    assert described() == found
