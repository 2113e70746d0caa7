"""Runs as plain records, out of job directories that anybody may have made."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from regente.analysis.comparison import compare
from regente.analysis.flat_config import config_with_references
from regente.analysis.run_records import read_runs, select, waiting
from regente.errors import TrackingError
from regente.jobs.job import freeze, write_json
from regente.jobs.process_identity import process_identity
from regente.tracking.store import open_store
from tests.analysis.conftest import write_run, write_sweep


def test_a_config_is_flat_with_references_followed_but_that_to_the_seed() -> None:
    text = """\
seed: 3
data:
  seed: ${seed}
  shape: [1, 28]
model:
  input: ${data.shape}
  out: ${model.input}
  name: a ${data.x}
  gone: ${nope.x}
  own: ${data.seed}
optimizer: {lr: 1.0e-3, groups: [{lr: 1}], betas: []}
metrics: {}
text: |
  a: b
"c d":
- 1
"""
    config, references = config_with_references(text)
    assert config == {
        "seed": 3, "data.seed": "${seed}", "data.shape": (1, 28), "model.input": (1, 28), "model.out": (1, 28),
        "model.name": "a ${data.x}", "model.gone": "${nope.x}", "model.own": "${seed}",
        "optimizer.lr": 0.001, "optimizer.groups": ((("lr", 1),),), "optimizer.betas": (), "metrics": (),
        "text": "a: b\n", "c d": (1,),
    }  # fmt: skip
    assert references == {"model.input", "model.out", "model.own"}
    # an anchor of one root key that another one uses
    assert config_with_references("a: &x {b: 1}\nc: *x\n")[0] == {"a.b": 1, "c.b": 1}


@pytest.mark.parametrize(
    "text",
    [
        "- 1\n", "a: [", "", "...\n", "a: " + "[" * 3000, "a: x\n" * 60_000,
        "a0: &a0 [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    ],
    ids=["list", "open", "empty", "end", "deep", "large", "aliases"],
)  # fmt: skip
def test_a_config_that_is_none_is_refused_soon(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        config_with_references(text)


def test_a_record_has_what_the_run_left_and_its_state(project: Path) -> None:
    runs = project / "runs"
    sweep = write_sweep(runs / "a" / "sweep-1", {"x1": [], "x2": [], "x3": []})
    done = write_run(sweep, 1, 0.5, name="x2", metrics={"test/acc": 0.4, "val/bad": float("nan")}, lr=0.1)
    pruned = write_run(sweep, 2, 0.5, name="x1", pruned=True)
    running, failed, stopped = (write_run(runs / "b", seed, name=str(seed)) for seed in (3, 4, 5))
    write_json(running / "process.json", asdict(process_identity(os.getpid())))
    (failed / "traceback.txt").write_text("boom")
    (sweep / "states").mkdir()
    (sweep / "states" / "x1.json").write_text("{}")
    found, damaged = read_runs([*select(["a", "b"], project)["a"], *select(["b"], project)["b"]])
    assert not damaged
    by_path = {run.path: run for run in found}
    assert {path: by_path[path].state for path in (done, pruned, running, failed, stopped)} == {
        done: "done", pruned: "pruned", running: "running", failed: "failed", stopped: "stopped",
    }  # fmt: skip
    first = by_path[done]
    assert (first.seed, first.number, first.sweep, first.experiment) == (1, 1, sweep, "a")
    assert (first.value, first.metrics, first.monitor) == (
        0.5,
        {"val/acc": 0.5, "test/acc": 0.4},
        ("val/acc", "max"),
    )
    assert (first.config["lr"], first.seconds, by_path[running].value) == (0.1, 1.5, None)
    assert waiting(sweep) == 2  # without a file of their state


def test_a_name_is_a_run_a_sweep_or_an_experiment(project: Path) -> None:
    runs = project / "runs"
    single = write_run(runs / "a", 1, 0.5, name="20260101-000000-abc123")
    sweep = write_sweep(runs / "a" / "sweep-12ab", {})
    with pytest.raises(TrackingError, match="a sweep without jobs yet"):
        select(["sweep-12ab"], project)
    inside = [write_run(sweep, seed, 0.5 + seed / 10, name=f"j{seed}") for seed in (1, 2)]
    write_run(sweep / "smoke_test", 1, 0.9, name="0")
    other = write_run(runs / "b", 1, 0.5, name="20250101-000000-ffff00")
    assert select(["a", "sweep-12ab", "runs/a/sweep-12ab", "b", single.name, "a:best", "j1"], project) == {
        "a": [single, *inside], "sweep-12ab": inside, "runs/a/sweep-12ab": inside, "b": [other],
        single.name: [single], "a:best": [inside[1]], "j1": [inside[0]],
    }  # fmt: skip
    for path in (single, other, *inside):  # the latest
        facts = json.loads((path / "job.json").read_text())
        (path / "job.json").write_text(json.dumps(facts | {"order": 1 + (path == inside[1])}))
    assert list(select([], project).values()) == [inside]
    (inside[1] / "job.json").write_text(json.dumps(facts | {"order": 1}))
    (single / "job.json").write_text(json.dumps(facts | {"order": 2}))
    assert select([], project) == {"a": [single, *inside]}
    with pytest.raises(TrackingError, match="run nope: no such run here"):
        select(["nope"], project)


def test_a_damaged_directory_hides_no_other(project: Path) -> None:
    folder = project / "runs" / "a"
    good = write_run(folder, 1, 0.5, name="1")
    for name, file, content in [
        ("2", "job.json", "{}"), ("3", "config.yaml", "a: ["), ("4", "job.json", "[1"),
        ("5", "job.json", '{"experiment": 5}'),
    ]:  # fmt: skip
        (write_run(folder, 1, 0.5, name=name) / file).write_text(content)
    pipe = write_run(folder, 1, 0.5, name="6") / "config.yaml"
    pipe.unlink()
    os.mkfifo(pipe)
    big = write_run(folder, 1, 0.5, name="7")
    (big / "result.json").write_text('{"metrics": {"val/acc": 1' + "0" * 400 + "}}")
    found, damaged = read_runs(select(["a"], project)["a"])
    assert [run.path for run in found] == [good, big]
    assert [path.name for path in damaged] == ["2", "3", "4", "5", "6"]
    assert found[1].value is None


# MLflow 3.17's own use of SQLAlchemy 2.1, November 2026
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_runs_that_are_in_the_store_alone_are_compared(project: Path, store: Path) -> None:
    from mlflow.entities import Metric, Param

    client, experiment = open_store("sqlite:///mlflow.db", project, "e")
    sweep = client.create_run(experiment, tags={"regente.kind": "sweep"}).info.run_id
    for lr, seed, value in [(0.1, 0, 0.5), (0.1, 1, 0.625), (0.01, 0, 0.75), (0.01, 1, 0.875)]:
        text = f"seed: {seed}\noptimizer: {{lr: 0.3}}\ndata: {{seed: '${{seed}}'}}\n"
        facts = {"overrides": [f"seed={seed}"], "command": ["regente"], "choices": {}}
        job = freeze(text, project / "elsewhere", f"{lr}-{seed}", experiment="e", **facts)
        tags = {"regente.kind": "job", "mlflow.parentRunId": sweep}
        run = client.create_run(experiment, tags=tags).info.run_id
        for file in ("config.yaml", "job.json"):
            client.log_artifact(run, str(job.path / file), "config")
        params = {"monitor.metric": "val/acc", "monitor.mode": "max", "optimizer.lr": "0.3"}
        params |= {"resume.10/optimizer.lr": str(lr), "resume.9/optimizer.lr": "7"}
        metrics = {"best/val/acc": value, "best/epoch": 3.0, "val/acc": 0.1, "test/acc": value / 2}
        logged = [Metric(key, each, 0, 0) for key, each in metrics.items()]
        client.log_batch(run, logged, [Param(*each) for each in params.items()])
        client.set_terminated(run)
    shutil.rmtree(project / "elsewhere")
    for name in ("e", sweep[:12]):
        found = compare([name], project)
        assert found.keys == ["optimizer.lr"]
        assert [(group.settings["optimizer.lr"], group.n, group.mean) for group in found.groups] == [
            (0.01, 2, 0.8125), (0.1, 2, 0.5625),
        ]  # fmt: skip
    assert found.groups[0].mean_of("test/acc") == 0.40625
    (one,) = compare([run], project).runs
    assert (one.path.name, one.value) == (run, 0.875)
    with pytest.raises(TrackingError, match="run f: no such run here"):
        select(["f"], project)
