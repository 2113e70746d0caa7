"""Checkpoint files: complete or not there, damage is found and named, full disks."""

import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from regente.errors import CheckpointError
from regente.jobs import checkpoint_files
from regente.jobs.checkpoint_files import load
from regente.training.checkpoints.saving import SafeSaving
from regente.training.checkpoints.writing import remove_drafts, write
from tests.conftest import Ended
from tests.training.checkpoints.test_resume import assert_same, fragile, metrics  # noqa: F401 - a fixture
from tests.training.test_fit import jobs, own_project, query

Run = Callable[..., Ended]
CONTENT = {"global_step": 3, "state_dict": {"a": torch.arange(5000.0)}}


def written(path: Path) -> Path:
    write(path, lambda file: torch.save(CONTENT, file))
    return path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_directory(path: Path, offset: int) -> None:
    """Flip bit 4 of a byte of the last entry of the archive's directory."""
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + offset] ^= 0x10
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip, "has changed"),
    "bit of the archive's directory": (lambda path: flip_directory(path, 16), "has changed"),  # a name
    "mark of a folder": (lambda path: flip_directory(path, 38), "has changed"),
    "cut off": (lambda path: os.truncate(path, 2000), "damaged"),
    "cut off by a byte": (lambda path: os.truncate(path, path.stat().st_size - 1), "damaged"),
    "empty": (lambda path: os.truncate(path, 0), "empty"),
    "text": (lambda path: path.write_text("epoch,loss\n1,2\n"), ""),
    "folder": (folder, "a folder, not a checkpoint"),
    "gone": (lambda path: path.unlink(), "no such checkpoint"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_found_and_the_state_before_it_is_used(case: str, tmp_path: Path) -> None:
    path = written(tmp_path / "step-00000003.ckpt")
    older = written(tmp_path / "step-00000002.ckpt")
    assert checkpoint_files.damage(path) == ""
    hurt, words = DAMAGE[case]
    hurt(path)
    assert words in checkpoint_files.damage(path)
    assert checkpoint_files.damage(path)
    with pytest.raises(CheckpointError):
        load(path)
    if case != "gone":
        assert checkpoint_files.newest_undamaged(tmp_path)[0] == older
        older.unlink()
        with pytest.raises(CheckpointError, match="every state is damaged"):
            checkpoint_files.newest_undamaged(tmp_path)


def test_no_flipped_bit_changes_a_tensor_without_a_word(tmp_path: Path) -> None:
    path, draw = written(tmp_path / "a.ckpt"), random.Random(0)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    headers = [place for place in range(len(whole)) if place < largest.header_offset or place > 20_500]
    for place in [*(draw.randrange(len(whole)) for _ in range(100)), *draw.sample(headers, 300)]:
        data = bytearray(whole)
        data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            content = load(path)
        except CheckpointError:
            continue
        assert content["global_step"] == 3
        assert torch.equal(content["state_dict"]["a"], CONTENT["state_dict"]["a"]), place  # type: ignore[index]


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/never",)


def test_code_in_a_checkpoint_is_refused_and_named(tmp_path: Path) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"holds code \(posix.system\)"):
        load(tmp_path / "evil.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        load(tmp_path / "old.ckpt")


def test_the_drafts_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    path = written(tmp_path / "step-00000003.ckpt")
    (tmp_path / f".{path.name}.1.draft").write_bytes(b"half")
    assert remove_drafts(tmp_path) == [f".{path.name}.1.draft"]
    assert list(tmp_path.iterdir()) == checkpoint_files.resume_states(tmp_path) == [path]


def test_every_save_that_fails_in_the_background_is_reported(tmp_path: Path) -> None:
    saving = SafeSaving(lambda _: None)
    saving.save_checkpoint({"global_step": 1}, tmp_path / "a.ckpt")
    saving.save_checkpoint({"global_step": 2, "odd": lambda: None}, tmp_path / "b.ckpt")
    saving.link(tmp_path / "last.ckpt", tmp_path / "b.ckpt")  # what comes after it succeeds
    with pytest.raises(CheckpointError, match=r"b.ckpt: cannot be saved \(.*lambda"):
        saving.flush()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ckpt"]


def test_a_state_that_cannot_be_loaded_again_is_refused_at_the_first_save(tmp_path: Path) -> None:
    saving = SafeSaving(lambda _: None)
    with pytest.raises(CheckpointError, match="code"):
        saving.save_checkpoint({"global_step": 1, "odd": Path.exists}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="cannot be saved"):
        saving.save_checkpoint({"global_step": 1, "odd": lambda: None}, tmp_path / "a.ckpt")
    saving = SafeSaving(lambda _: None)
    saving.save_checkpoint({"global_step": 1, "path": Path("x")}, tmp_path / "b.ckpt")
    assert load(tmp_path / "b.ckpt")["path"] == "x"


def test_a_callback_whose_state_is_an_object_costs_its_own_state_alone(tmp_path: Path) -> None:
    notes: list[str] = []
    saving, means = SafeSaving(notes.append), np.arange(3.0)
    states = {"Odd": {"open": lambda: None}, "Arrays": {"means": means, "size": torch.Size([2])}}
    for name in "ab":
        saving.save_checkpoint({"callbacks": states}, tmp_path / f"{name}.ckpt")
        means += 1
    saving.flush()
    found = [load(tmp_path / f"{name}.ckpt")["callbacks"] for name in "ab"]
    assert [set(each) for each in found] == [{"Arrays"}, {"Arrays"}]
    assert [each["Arrays"]["means"].tolist() for each in found] == [[0, 1, 2], [1, 2, 3]]
    assert len(notes) == 1
    assert notes[0].startswith("callback Odd has a state that is no plain data")
    torch.save({"state_dict": np.array([Evil()])}, tmp_path / "objects.ckpt")
    with pytest.raises(CheckpointError):
        load(tmp_path / "objects.ckpt")


def test_a_state_that_changes_while_it_is_written_is_saved_as_it_was(tmp_path: Path) -> None:
    saving, weights = SafeSaving(lambda _: None), torch.zeros(1_000_000)
    for step in range(3):
        saving.save_checkpoint({"global_step": step, "w": weights}, tmp_path / f"step-{step:08d}.ckpt")
        weights += 1
    saving.flush()
    for step in range(3):
        assert load(tmp_path / f"step-{step:08d}.ckpt")["w"].unique().tolist() == [step]


FULL = "import resource\n        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))"


@pytest.mark.usefixtures("store")
def test_a_full_disk_does_not_stop_the_training_but_sets_the_exit_code(regente: Run, project: Path) -> None:
    own_project(project, line=FULL)
    ended = regente("train", "mine", "tracking.log_model=none")
    assert ended.code == 5
    (job,) = jobs(project)
    assert len([line for line in ended.out.splitlines() if "could not be written" in line]) == 1
    assert "could not be written (File too large)" in ended.err
    assert not list(job.rglob("*.draft"))
    assert not list(job.rglob("*.ckpt"))
    assert json.loads((job / "result.json").read_text())["metrics"]["test/acc"] > 0


def test_resume_names_the_settings_that_must_not_change(regente: Run, fragile: Path) -> None:  # noqa: F811
    assert regente("train", "mine", env={"DIE_AT": "train 12"}).code == -9
    ended = regente("resume", "latest", "optimizer.lr=0.5", "data.batch_size=64", "model.nope=1")
    assert ended.code == 2
    assert "model.nope" in ended.err
    ended = regente(
        "resume", "optimizer.lr=0.5", "data.batch_size=64", "trainer.on_nan=rollback"
    )  # the latest
    assert ended.code == 2
    (line,) = (line for line in ended.lines if line.startswith("optimizer.lr=0.5: "))
    assert line.endswith("it was 0.001; to change it, add --allow optimizer.lr")
    assert any(line.startswith("data.batch_size=64: cannot change from 128") for line in ended.lines)
    assert "on_nan" not in ended.err
    ended = regente("resume", "latest", "optimizer.lr=0.5", "--allow", "optimizer.lr")
    assert ended.code == 0, ended.err
    (job,) = jobs(fragile)
    rates = [values for (key, step), values in metrics(job).items() if key == "train/lr" and step > 13]
    assert rates[0] == [0.5]
    ended = regente("resume", "latest")
    assert ended.code == 0
    assert ended.out.startswith("nothing to do:")


def test_a_finished_run_is_resumed_when_it_gets_more_epochs(regente: Run, fragile: Path) -> None:  # noqa: F811
    assert regente("train", "mine", "trainer.max_epochs=4").code == 0
    (longer,) = jobs(fragile)
    assert regente("train", "mine").code == 0
    (job,) = set(jobs(fragile)) - {longer}
    ended = regente("resume", str(job), "trainer.max_epochs=4")
    assert ended.code == 0, ended.err
    assert_same(job, longer)


@pytest.mark.usefixtures("store")
def test_a_fork_starts_from_the_weights_of_its_run_and_is_linked_to_it(regente: Run, project: Path) -> None:
    own_project(project)
    fast = ["tracking.log_model=none"]
    assert regente("train", "mine", *fast).code == 0
    ended = regente("fork", "latest", "optimizer.lr=1e-4")
    assert ended.code == 0, ended.err
    assert "starts from the weights of" in ended.out
    parent = query(project, "select run_uuid from runs order by start_time limit 1")[0][0]
    assert query(project, "select value from tags where key = 'regente.forked_from'") == [(parent,)]
    first, _ = sorted(jobs(project), key=lambda job: (job / "config.yaml").stat().st_mtime)
    best = json.loads((first / "result.json").read_text())["best_checkpoint"]
    bare = project / "bare.ckpt"
    content = torch.load(best, weights_only=True)["state_dict"]
    torch.save({key.removeprefix("model."): value for key, value in content.items()}, bare)
    for words, code, said in [
        (["resume", str(bare)], 5, f"init_from={bare}"),
        (["train", str(first)], 2, f"to resume it: regente resume {first}"),
        (["resume", "nope.ckpt"], 5, "no such checkpoint"),
        (["check", "mine", "init_from=nope.ckpt"], 5, "init_from=nope.ckpt: no such file"),
        (["check", "mine", "init_from=nope"], 6, "run nope: no such run here"),
        (["train", "mine", f"init_from={bare}", "model.wide=16"], 5, "of another model"),
        (["train", "mine", f"init_from={bare}"], 0, ""),
        (["train", "mine", "init_from=latest"], 0, ""),
    ]:
        ended = regente(*words, *(fast if words[1] == "mine" else []))
        assert ended.code == code, (words, ended.err)
        assert said in ended.err
    latest = max(jobs(project), key=lambda job: job.stat().st_mtime)
    config = (latest / "config.yaml").read_text()
    assert re.search(r"init_from: runs/mine/\S+\.ckpt", config)  # what was the latest when it was made
    assert latest.name not in config


@pytest.mark.usefixtures("store")
def test_a_killed_run_is_resumed_in_its_mlflow_run_with_each_metric_once(regente: Run, fragile: Path) -> None:  # noqa: F811
    words = ["mine", "tracking=mlflow", "tracking.log_model=none"]
    assert regente("train", *words, env={"DIE_AT": "train 14"}).code == -9
    ended = regente("resume", "latest", "trainer.max_epochs=4")
    assert ended.code == 0, ended.err
    assert query(fragile, "select status from runs") == [("FINISHED",)]
    rows = query(fragile, "select key, step from metrics where key = 'train/loss' or key like 'val/%'")
    assert len(rows) == len(set(rows)) > 10
    assert query(fragile, "select value from params where key = 'resume.1/trainer.max_epochs'") == [("4",)]
