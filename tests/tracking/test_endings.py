"""How the run of a dead process ends in the store: as its directory says, whatever it did not come to write."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import LoggedModelOutput

from regente.config.compose import compose
from regente.errors import TrackingError
from regente.jobs.job import Job, freeze
from regente.jobs.process_identity import process_identity
from regente.tracking.journal import Journal
from regente.tracking.run_artifacts import log_model
from regente.tracking.shipping_state import read_state
from regente.tracking.store import open_store
from regente.tracking.sync import sync_job, sync_project, sync_store, unshipped
from tests.training.test_fit import query

pytestmark = pytest.mark.usefixtures("store")
URI = "sqlite:///mlflow.db"
RESULT: dict[str, Any] = {
    "metrics": {"val/acc": 0.5}, "best_epoch": 0, "best_checkpoint": None, "epochs": 1,
    "samples_per_second": 1.0, "peak_megabytes": 1.0,
}  # fmt: skip


def died(project: Path, *, result: bool, lines: tuple[tuple[str, dict[str, Any]], ...] = ()) -> Job:
    """The job of a process that was killed."""
    made = compose("digits_mlp", [f"tracking.uri={URI}", "tracking.log_model=none"])
    job = freeze(made.yaml(), project / "runs", experiment="e", overrides=[], command=[], choices={})
    dead = replace(process_identity(1), started="1")
    (job.path / "process.json").write_text(json.dumps(asdict(dead)))
    (job.path / "recorded.json").write_text("{}")
    tags = {f"regente.{key}": str(value) for key, value in asdict(dead).items()}
    journal = Journal(job.journal)
    journal.write("start", experiment="e", name="n", params={}, tags={**tags, "regente.job": str(job.path)})
    journal.write("metrics", step=1, values={"train/loss": 0.25})
    for kind, content in lines:
        journal.write(kind, **content)
    journal.close()
    if result:
        (job.path / "result.json").write_text(json.dumps(RESULT))
    return job


def shown(project: Path) -> list[tuple[Any, ...]]:
    """Status, and how often each metric is there."""
    found = "select status, (select group_concat(key) from metrics where metrics.run_uuid = runs.run_uuid) from runs"
    return query(project, found)


ONCE = "train/loss,best/val/acc,best/epoch,throughput,peak_megabytes"


@pytest.mark.parametrize(
    ("result", "lines", "there"),
    [
        (True, (), ("FINISHED", ONCE)),
        (True, (("result", RESULT),), ("FINISHED", ONCE)),
        (False, (), ("KILLED", "train/loss")),
    ],
)
def test_a_process_killed_before_it_wrote_the_end_has_finished_if_it_left_its_result(
    result: bool, lines: Any, there: tuple[str, str], project: Path
) -> None:
    job = died(project, result=result, lines=lines)
    assert sync_job(job, project) == "shipped"
    assert [(status, set(keys.split(","))) for status, keys in shown(project)] == [
        (there[0], set(there[1].split(",")))
    ]
    assert len(shown(project)[0][1].split(",")) == len(there[1].split(","))
    assert list(unshipped(project)) == []


def test_a_store_of_artifacts_that_fails_takes_no_result_from_a_run_also_when_that_is_moved(
    project: Path,
) -> None:
    job = died(project, result=True)
    (job.path / "a.txt").write_text("a")
    journal = Journal(job.journal)
    journal.artifact(job.path / "a.txt", "")
    journal.write("result", **RESULT)
    journal.write("end", status="FINISHED")
    journal.close()
    (project / "mlartifacts").write_text("no folder")
    assert sync_store(project, URI) == 1
    assert [status for status, _ in shown(project)] == ["FINISHED"]
    assert query(project, "select value from tags where key = 'regente.failure'") == []
    assert list(unshipped(project)) != []
    (project / "mlartifacts").unlink()
    job.path.rename(job.path.with_name("moved"))
    assert sync_store(project, URI) == 1
    assert [status for status, _ in shown(project)] == ["FINISHED"]
    assert len(shown(project)[0][1].split(",")) == len(ONCE.split(","))
    assert list(project.glob("mlartifacts/**/a.txt")) and list(
        project.glob("mlartifacts/**/learning_curves.svg")
    )
    assert list(unshipped(project)) == []


def change(job: Job, *missing: str) -> None:
    file = job.path / "recorded.json"
    file.write_text(
        json.dumps({key: value for key, value in read_state(job.path).items() if key not in missing})
    )


@pytest.mark.parametrize(
    "damage", [lambda job: None, lambda job: (job.path / "test.npz").write_bytes(b"damaged")]
)
def test_figures_that_a_killed_shipper_did_not_draw_are_drawn_by_the_next_command(
    damage: Callable[[Job], None], project: Path
) -> None:
    job = died(project, result=True)
    assert sync_job(job, project) == "shipped"
    (there,) = project.glob("mlartifacts/*/*/artifacts/figures")
    shutil.rmtree(there)
    change(job, "complete")
    damage(job)
    assert list(unshipped(project)) == [job.path]
    assert sync_store(project, URI) == 1
    assert (there / "learning_curves.svg").is_file()
    assert list(unshipped(project)) == []  # also where a file is damaged: it would fail again


@pytest.mark.filterwarnings("ignore")  # those of mlflow.pyfunc, which is imported here
def test_a_model_that_a_killed_process_has_begun_to_log_is_completed(project: Path) -> None:
    job = died(project, result=True)
    assert sync_job(job, project) == "shipped"
    client, experiment = open_store(URI, project, "e")
    run, checkpoint = read_state(job.path)["run_id"], job.path / "it's.ckpt"
    checkpoint.write_bytes(b"weights")
    np.save(job.path / "example.npy", np.zeros((2, 3), np.float32))

    def log() -> list[Any]:
        (job.path / "exported").mkdir()
        (job.path / "exported/model.pt2").write_bytes(b"program")
        np.save(job.path / "exported/outputs.npy", np.zeros((2, 1), np.float32))
        log_model(client, run, job, checkpoint, own=True)
        assert not (job.path / "exported").exists(), client.get_run(run).data.tags.get("regente.model")
        return list(client.search_logged_models([experiment]))

    begun = client.create_logged_model(
        experiment, name="model", source_run_id=run, tags={"regente.weights": "x"}
    )
    client.log_outputs(run, [LoggedModelOutput(begun.model_id, 0)])
    for _ in range(2):  # the second time it is there
        (model,) = log()
        assert (model.model_id, str(model.status)) == (begun.model_id, "READY")
        assert client.get_run(run).outputs.model_outputs[0].model_id == begun.model_id
    assert f"run_id: {run}" in next(project.rglob("MLmodel")).read_text()
    checkpoint.touch()  # other weights of the same name
    assert len(log()) == 2


def test_a_run_whose_id_was_not_noted_is_found_again(project: Path) -> None:
    job = died(project, result=False)
    assert sync_job(job, project) == "shipped"
    change(job, "run_id", "offset", "ended", "complete")
    assert sync_job(job, project) == "shipped"
    assert [status for status, _ in shown(project)] == ["KILLED"]
    assert query(project, "select count(*) from metrics") == [(1,)]


def test_a_damaged_database_is_named_with_the_command_that_repairs_it(project: Path) -> None:
    file = project / "mlflow.db"
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 40] = b"\xff" * 4096 * 37
    file.write_bytes(content)
    with pytest.raises(TrackingError, match=r"mlflow.db: the database is damaged; .* \.recover \|"):
        open_store(URI, project, "e")


def test_damage_that_mlflow_does_not_see_is_found_by_sync(project: Path) -> None:
    assert list(sync_project(project)) == [f"{URI}: all runs are complete"]
    with sqlite3.connect(project / "mlflow.db") as database:
        (page,) = database.execute("select rootpage from sqlite_master where name = 'experiments'").fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    with (project / "mlflow.db").open("r+b") as file:
        content = file.read()
        at = content.index(b"Default", (page - 1) * size)  # the index still has the old name
        file.seek(at)
        file.write(b"Devault")
    (line,) = sync_project(project)
    assert line.startswith(f"not shipped: tracking.uri={URI}: the database is damaged; put a copy back")


def test_a_store_whose_maker_was_killed_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "a%20b? c"
    folder.mkdir()
    draft = folder / ".mlflow.db.draft"
    with sqlite3.connect(draft) as database:
        database.execute("create table experiments (name text)")
    client, experiment = open_store("sqlite:///mlflow.db", folder, "e")
    assert client.get_experiment(experiment).name == "e"
    assert not draft.exists() and (folder / "mlflow.db").is_file()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("a")] == [folder.name]
