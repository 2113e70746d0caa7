"""Runs as rows: which runs are one configuration, which columns are shown, and what is said about them."""

import json
import math
import os
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from regente.analysis.comparison import as_json, compare
from regente.analysis.formats import as_csv, as_html, as_latex, as_markdown, as_text
from regente.cli.compare import compare as command
from regente.errors import ConfigError
from regente.jobs.job import write_json
from regente.jobs.process_identity import process_identity
from tests.analysis.conftest import write_run, write_sweep

VALUES = {0.1: (0.90, 0.91, 0.92), 0.01: (0.80, 0.82, 0.81)}


def grid(folder: Path, model: str = "mlp", shift: float = 0.0) -> None:
    """Two learning rates by three seeds."""
    for lr, values in VALUES.items():
        for seed, value in enumerate(values):
            write_run(
                folder, seed, value + shift * (1 + seed), metrics={"test/acc": value - 0.1}, choices={"model": model},
                model={"_target_": f"m.{model}", "width": 8}, optimizer={"lr": lr, "same": 1},
                scheduler={"start": "${optimizer.lr}"}, tracking={"run_name": f"r{seed}"},
            )  # fmt: skip


def test_runs_that_differ_in_the_seed_alone_are_one_row(project: Path) -> None:
    runs = project / "runs" / "a"
    grid(runs)
    found = compare(["a"], project)
    assert found.keys == ["optimizer.lr"]  # not the scheduler's, which follows it
    first, second = found.rows()
    assert (first["optimizer.lr"], first["n"], second["optimizer.lr"]) == (0.1, 3, 0.01)
    assert (first["mean"], first["sd"], first["best"], first["worst"]) == pytest.approx(
        (0.91, 0.01, 0.92, 0.90)
    )
    assert (first["low"], first["high"]) == pytest.approx((0.91 - 0.02484, 0.91 + 0.02484), abs=1e-5)
    assert (first["test"], first["run"].startswith("runs/a/")) == (pytest.approx(0.81), True)
    assert str(found.verdict).startswith(
        "lr=0.1 against lr=0.01: +10.00 points val/acc, 95 % interval 7.52 to 12.48, "
        "3 paired seeds (paired t, p = 0.0033): established"
    )
    assert found.notes() == [
        "lr=0.1 is the best of 2 by val/acc, which flatters it; its test/acc is 0.8100 (n=3)"
    ]
    write_run(
        runs, 1, 0.99, model={"_target_": "m.mlp", "width": 8}, optimizer={"lr": 0.1, "same": 1},
        scheduler={"start": 0.1}, name="z",
    )  # the same seed again  # fmt: skip
    again = compare(["a"], project)
    assert (again.rows()[0]["n"], again.rows()[0]["best"]) == (3, 0.99)
    assert "1 run repeated by a later run of the same seed: left out" in again.notes()


def test_runs_on_other_data_are_rows_of_their_own(project: Path) -> None:
    runs = project / "runs"

    def on(digest: str, seed: int, value: float | None, lr: float = 0.1, folder: str = "a") -> None:
        path = write_run(runs / folder, seed, value, optimizer={"lr": lr}, name=f"{digest}-{seed}-{lr}")
        if digest:
            write_json(path / "data.json", {"name": "D", "source": "d", "digest": digest, "splits": {}})

    for seed, value in enumerate((0.8, 0.81)):
        on("old", seed, value)
        on("new", seed, value + 0.1)
    on("new", 0, 0.7, lr=0.2)
    on("", 2, None)  # has not read its data yet
    found = compare(["a"], project)
    assert found.keys == ["optimizer.lr", "data digest"]
    assert [(row["optimizer.lr"], row["data digest"], row["n"]) for row in found.rows()] == [
        (0.1, "new", 2), (0.1, "old", 2), (0.2, "new", 1),
    ]  # fmt: skip
    assert found.rows()[0]["mean"] == pytest.approx(0.905)
    assert "data changed between runs of the same settings: data digest keeps them apart" in str(
        found.notes()
    )
    assert found.verdict is not None and found.verdict.difference is not None
    assert (found.verdict.difference.method, found.groups[0].repeats) == ("Welch", 0)
    assert len(found.more_seeds()) == 1
    by = compare(["a"], project, by=["optimizer.lr"])
    assert [(row["optimizer.lr"], row["n"]) for row in by.rows()] == [(0.1, 4), (0.2, 1)]
    assert "same settings: rows hold both" in str(by.notes())
    for seed in range(3):  # split by the seed: no other data
        on(f"split{seed}", seed, 0.5 + seed, folder="b")
    split = compare(["b"], project)
    assert (split.rows()[0]["n"], split.keys) == (3, [])
    assert "each seed had data of its own" in str(split.notes())


def test_columns_are_the_shortest_description(project: Path) -> None:
    runs = project / "runs"
    grid(runs / "a")
    grid(runs / "b", "cnn", 0.05)
    for seed in (0, 1):
        write_run(
            runs / "b",
            seed,
            0.5,
            choices={"model": "cnn"},
            model={"_target_": "m.cnn", "width": 9},
            optimizer={"lr": 0.1},
        )
    found = compare(["a", "b"], project)
    # `_target_` is told by the model; `width` differs under one model
    assert found.keys == ["experiment", "model", "model.width", "optimizer.lr", "optimizer.same"]
    assert list(found.names.values()) == ["experiment", "model", "width", "lr", "same"]
    assert found.groups[-1].settings["optimizer.same"] == "-"
    by = compare(["a", "b"], project, by=["model"])
    assert [(row["model"], row["n"]) for row in by.rows()] == [("mlp", 6), ("cnn", 8)]
    with pytest.raises(
        ConfigError, match=r"--by nope: no run has this setting; in these the runs differ: experiment, model"
    ):
        compare(["a", "b"], project, by=["nope"])


def test_by_pairs_over_seeds_and_the_other_settings(project: Path) -> None:
    runs = project / "runs" / "a"
    grid(runs)
    for lr, values in VALUES.items():
        for seed, value in enumerate(values):
            write_run(
                runs, seed, value + 0.01 + seed / 1000, choices={"model": "cnn"}, model={"_target_": "m.cnn"},
                optimizer={"lr": lr, "same": 1}, scheduler={"start": lr},
            )  # fmt: skip
    verdict = compare(["a"], project, by=["model"]).verdict
    assert verdict is not None and verdict.difference is not None
    assert (verdict.difference.method, verdict.difference.n) == ("paired t", (6, 6))
    assert verdict.difference.effect == pytest.approx(0.011)


def test_two_names_are_compared_whatever_else_is_there(project: Path) -> None:
    runs = project / "runs"
    grid(runs / "a")
    grid(runs / "b", "cnn", 0.001)
    found = compare(["a", "b"], project)
    assert str(found.verdict).startswith(
        "a (lr=0.1) against b (lr=0.1): -0.20 points val/acc, 95 % interval -0.45 to 0.05"
    )
    # the best of two against the best of two
    assert found.verdict is not None and found.verdict.comparisons == 4
    one = compare(["a", "b", "a:best"], project)
    assert one.verdict is not None and one.verdict.comparisons == 6  # all pairs


def test_one_run_each_is_compared_on_the_test_samples(project: Path) -> None:
    runs = project / "runs"
    label = np.arange(40) % 4
    paths = []
    for name, wrong in (("a", 4), ("b", 14)):
        paths.append(write_run(runs / name, 0, 1 - wrong / 40, name=name * 3, optimizer={"lr": wrong}))
        prediction = np.where(np.arange(40) < wrong, 9, label)
        np.savez_compressed(paths[-1] / "test.npz", label=label, prediction=prediction, loss=np.ones(40))
    text = str(compare(["aaa", "bbb"], project).verdict)
    assert text.startswith("aaa against bbb: +25.00 points test/acc, 95 % interval 10.98 to 39.02, ")
    assert (
        "40 test samples (McNemar, p = 0.002): established for these two trained models; several seeds"
        in text
    )
    (paths[1] / "test.npz").write_bytes(b"damaged")
    assert "bbb/test.npz: damaged" in str(compare(["aaa", "bbb"], project).verdict)
    (paths[1] / "test.npz").unlink()
    text = str(compare(["aaa", "bbb"], project).verdict)
    assert (
        text
        == "aaa against bbb: one seed each, and bbb has no predictions of test samples (test.npz); add seeds: --more-seeds"
    )


def test_the_commands_that_add_seeds_give_each_row_what_the_others_have(project: Path) -> None:
    runs = project / "runs" / "a"
    for seed in (1, 2, 3):
        write_run(runs, seed, 0.9 + seed / 100, optimizer={"lr": 0.1})
    for seed in (2, 9):
        write_run(runs, seed, 0.5 + seed / 1000, optimizer={"lr": 0.2})
    found = compare(["a"], project)
    assert found.verdict is not None and found.verdict.established
    assert found.more_seeds() == ["regente train a seed=1"]
    for seed in (1, 2):
        write_run(runs, seed, 0.92 + seed / 50, optimizer={"lr": 0.1, "x": 1})
    close = compare(["a"], project)  # not established: the two best alone get more
    assert close.verdict is not None and close.verdict.more_seeds is not None
    wanted = [3 + close.verdict.more_seeds - 2, close.verdict.more_seeds]
    assert [line.count(",") + 1 for line in close.more_seeds()] == wanted
    assert close.more_seeds()[0].startswith("regente train a -m seed=3,4,")
    with pytest.raises(ConfigError, match="--more-seeds: goes without --by"):
        compare(["a"], project, by=["optimizer.lr"]).more_seeds()


def test_what_is_left_out_is_counted(project: Path) -> None:
    sweep = write_sweep(
        project / "runs" / "a" / "sweep-1", {"j1": [], "j2": [], "j3": [], "j4": [], "j5": []}
    )
    (sweep / "states").mkdir()
    for name, more in (
        ("j1", {"value": 0.9}),
        ("j2", {"value": 0.99, "pruned": True}),
        ("j3", {}),
        ("j4", {"value": math.nan}),
    ):
        write_run(sweep, 1, name=name, lr=int(name[1]), **more)  # type: ignore[arg-type]
        (sweep / "states" / f"{name}.json").write_text("{}")
    found = compare(["sweep-1"], project)
    assert [(group.settings["lr"], group.n) for group in found.groups] == [(1, 1), (2, 0), (3, 0), (4, 0)]
    assert found.verdict is None
    assert found.notes() == [
        "1 run waiting in a sweep", "1 run failed or stopped: left out", "1 run pruned: left out",
        "1 run without val/acc: left out",
    ]  # fmt: skip
    write_json(sweep / "j3" / "process.json", asdict(process_identity(os.getpid())))  # it runs
    live = compare(["sweep-1"], project)
    assert "1 run still running" in live.notes()
    assert as_text(live, most=9)[0].split()[:4] == ["lr", "val/acc", "running", "run"]


def test_metrics_are_chosen_and_sorted_in_their_direction(project: Path) -> None:
    runs = project / "runs"
    for seed, (acc, loss) in enumerate([(0.9, 0.5), (0.8, 0.4)]):
        write_run(runs / "a", 0, acc, metrics={"val/loss": loss}, lr=seed)
    assert [row["mean"] for row in compare(["a"], project, metric="val/loss").rows()] == [0.4, 0.5]
    assert [row["lr"] for row in compare(["a"], project, sort="-lr").rows()] == [1, 0]
    assert [row["lr"] for row in compare(["a"], project, sort="-mean").rows()] == [1, 0]
    with pytest.raises(ConfigError, match=r"--metric val/los: no run has it; did you mean val/loss\?"):
        compare(["a"], project, metric="val/los")
    with pytest.raises(ConfigError, match="--sort x: no such column; there is: lr, n, mean"):
        compare(["a"], project, sort="x")
    write_run(runs / "b", 0, 0.1, monitor={"metric": "val/loss", "mode": "min"})
    with pytest.raises(
        ConfigError, match=r"monitor different metrics \(val/acc, val/loss\); choose one: --metric"
    ):
        compare(["a", "b"], project)


def test_each_format_holds_each_row(project: Path) -> None:
    runs = project / "runs" / "a"
    for name in ("a_b&c", "<i>|x", "esc\x1b[31m"):
        for seed in (0, 1):
            write_run(runs, seed, 0.5 + seed / 10, metrics={"test/acc": 0.4}, note=name)
    found = compare(["a"], project)
    text = as_text(found, most=2)
    assert text[0].split() == [
        "note",
        "n",
        "val/acc",
        "sd",
        "95",
        "%",
        "interval",
        "best",
        "worst",
        "test/acc",
        "best",
        "run",
    ]
    assert text[-1] == "and 1 more; --format csv has all" and len(text) == 4
    assert "\x1b" not in "".join(
        [*as_text(found, 9), as_csv(found), as_html(found), as_latex(found), as_markdown(found)]
    )
    assert (
        as_csv(found).splitlines()[0]
        == "note,n,mean,sd,low,high,best,worst,test,running,failed,stopped,pruned,run"
    )
    assert len(as_csv(found).splitlines()) == 4
    assert r"a\_b\&c & 2 & 0.5500" in as_latex(found)
    assert r"| \<i\>\|x | 2 |" in as_markdown(found)
    root = ET.fromstring(f"<div>{as_html(found, found.lines())}</div>")
    assert len(root.findall(".//tbody/tr")) == 3
    content = json.loads(as_json(found))
    assert content["verdict"]["established"] is False and len(content["rows"]) == 3


def test_the_command_prints_table_verdict_and_notes_and_other_formats(project: Path) -> None:
    grid(project / "runs" / "a")
    said = CliRunner().invoke(command, ["a"]).output.splitlines()
    assert said[0].startswith(
        "lr    n  val/acc      sd     95 % interval    best   worst  test/acc  best run"
    )
    assert said[1].startswith("0.1   3   0.9100  0.0100  0.8852 to 0.9348  0.9200  0.9000    0.8100  ")
    assert said[3] == "" and said[4].startswith("lr=0.1 against lr=0.01: +10.00 points") and len(said) == 6
    for form, start in {
        "csv": "optimizer.lr,n",
        "json": "{",
        "md": "| lr |",
        "latex": "\\begin",
        "html": "<table>",
    }.items():
        assert CliRunner().invoke(command, ["a", "--format", form]).output.startswith(start)
    assert CliRunner().invoke(command, ["--by", "model", "--more-seeds"]).exception is not None
    assert CliRunner().invoke(command, ["--more-seeds"]).output == "no seeds are missing\n"


def test_a_notebook_has_the_list_with_table_groups_verdict_and_plot(project: Path) -> None:
    from regente import runs

    assert runs() == [] and runs()._repr_html_() is None
    grid(project / "runs" / "a")
    found = runs("a")
    assert isinstance(found, list) and len(found) == 6 and found[0].metrics["val/acc"] > 0
    table = found.table()
    assert list(table["optimizer.lr"]) == [0.1, 0.01] and list(table["n"]) == [3, 3]
    first, second = found.groups()
    assert repr(first) == "<lr=0.1: val/acc 0.9100, n=3>"
    verdict = found.compare(first, second)
    assert verdict.established and repr(verdict).startswith("<lr=0.1 against lr=0.01: +10.00 points")
    assert "no predictions" in str(found.compare(found[0], found[1]))
    assert found.compare("a:best", found[0]).reason
    axes = found.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lr=0.1 (n=3)", "lr=0.01 (n=3)"]
    assert "lr=0.1 against lr=0.01" in str(found._repr_html_())
