"""How a run ends: exit code, status, what is saved, and the words."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from regente.jobs import checkpoint_files
from tests.conftest import Ended
from tests.training.checkpoints.test_resume import assert_same, fragile, metrics  # noqa: F401 - a fixture
from tests.training.test_fit import jobs, own_project, query, until

Run = Callable[..., Ended]
LONG = ["digits_mlp", "trainer.max_epochs=100000", "tracking.log_model=none"]
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138}


def training(project: Path) -> bool:
    return any('"train/loss"' in (job / "journal.jsonl").read_text() for job in jobs(project))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", CODES)
def test_a_signal_saves_the_state_and_says_how_to_go_on(
    name: str, start: Callable[..., ForkServerProcess], project: Path
) -> None:
    process = start("train", *LONG)
    until(lambda: training(project))
    assert process.pid is not None
    os.kill(process.pid, getattr(signal, name))
    process.join(60)
    assert process.exitcode == CODES[name]
    (job,) = jobs(project)
    newest = checkpoint_files.resume_states(job / "resume")[0]
    assert checkpoint_files.damage(newest) == ""
    step = torch.load(newest, weights_only=True)["global_step"]
    assert (project / "err").read_text().strip() == f"{name}: stopped, the state of step {step:,} is saved"
    assert (project / "out").read_text().splitlines()[
        -1
    ] == f"resume      regente resume {job.relative_to(project)}"
    assert query(project, "select status from runs") == [("KILLED",)]


def test_a_run_that_was_interrupted_goes_on_to_the_same_numbers(
    regente: Run,
    start: Callable[..., ForkServerProcess],
    fragile: Path,  # noqa: F811
) -> None:
    words = ["mine", "callbacks.resume.every_minutes=60", "trainer.max_epochs=6"]
    assert regente("train", *words).code == 0
    (undisturbed,) = jobs(fragile)
    process = start("train", *words)
    until(lambda: len(jobs(fragile)) == 2)
    (job,) = set(jobs(fragile)) - {undisturbed}
    until(lambda: bool(metrics(job)))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    ended = regente("resume", str(job))
    assert ended.code == 0, ended.err
    assert_same(job, undisturbed)


def test_a_second_signal_ends_it_at_once_with_nothing_half_written(
    start: Callable[..., ForkServerProcess],
    fragile: Path,  # noqa: F811
) -> None:
    (fragile / "fragile.py").write_text(
        (fragile / "fragile.py")
        .read_text()
        .replace(
            "        seen[",
            "        import time; time.sleep(1.5 if seen[True] > 3 else 0)\n        seen[",
        )
    )
    process = start("train", "mine")
    until(lambda: any(checkpoint_files.resume_states(job / "resume") for job in jobs(fragile)))
    time.sleep(1)
    assert process.pid is not None
    for _ in range(2):
        with suppress(ProcessLookupError):  # between two steps the first one ends it
            os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.1)
    process.join(1)
    assert process.exitcode == 143
    (job,) = jobs(fragile)
    assert all(checkpoint_files.damage(each) == "" for each in checkpoint_files.resume_states(job / "resume"))


# counted in the class: what an object counts goes back with the weights
NAN = (
    "Own.n = getattr(Own, 'n', 0) + self.training\n"
    "        x = x * (float('nan') if self.training and Own.n == 26 else 1)"
)


@pytest.mark.usefixtures("store")
def test_a_loss_that_is_no_number_names_step_and_batch_and_is_never_the_best(
    regente: Run, project: Path
) -> None:
    own_project(project, line=NAN)
    ended = regente(
        "train",
        "mine",
        "trainer.max_epochs=4",
        "callbacks.resume.every_minutes=0",
        "tracking.log_model=none",
    )
    assert ended.code == 7, ended.err
    assert "train/loss is nan at step 26 (epoch 1, batch 5)" in ended.err
    assert len(ended.err.splitlines()) == 1
    (job,) = jobs(project)
    kept = [*checkpoint_files.resume_states(job / "resume"), *(job / "checkpoints").glob("epoch*.ckpt")]
    assert len(kept) == 3
    for file in kept:
        content = torch.load(file, weights_only=True)
        assert all(torch.isfinite(value).all() for value in content["state_dict"].values()), file
        assert content["global_step"] <= 25
    assert query(project, "select status from runs") == [("FAILED",)]


def test_a_step_that_is_no_number_can_be_skipped(regente: Run, project: Path) -> None:
    own_project(project, line=NAN)
    ended = regente("train", "mine", "trainer.max_epochs=2", "trainer.on_nan=skip_step", "tracking=none")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    assert all(value == value for values in metrics(job).values() for value in values)


def test_a_training_that_diverges_can_go_back_and_on_at_half_the_rate(regente: Run, project: Path) -> None:
    own_project(project, line=NAN)
    words = [
        "train",
        "mine",
        "trainer.max_epochs=2",
        "trainer.on_nan=rollback",
        "trainer.steps_per_call=1",
        "callbacks.resume.every_minutes=0",
    ]
    ended = regente(*words, "tracking=none", "trainer.log_every_n_steps=1")
    assert ended.code == 0, ended.err
    assert "goes back to step 25, with 0.5 of the learning rate" in ended.out
    (job,) = jobs(project)
    rates = [values for (key, _), values in metrics(job).items() if key == "train/lr"]
    assert rates[0] == [1e-3]
    assert rates[-1] == [5e-4]


def test_a_signal_in_the_step_that_diverges_ends_the_run_that_goes_back(regente: Run, project: Path) -> None:
    kill = "\n        import os; self.training and Own.n == 26 and os.kill(os.getpid(), 15)"
    own_project(project, line=NAN + kill)
    words = ["trainer.on_nan=rollback", "trainer.steps_per_call=1", "callbacks.resume.every_minutes=0"]
    words += ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", "tracking=none"]
    ended = regente("train", "mine", *words)
    assert ended.code == 143, ended.err
    assert "goes back to step 25" in ended.out
    assert "SIGTERM: stopped, the state of step 25 is saved" in ended.err


OOM = (
    "import torch\n        if self.training and len(x) > 16: raise torch.OutOfMemoryError('CUDA out of memory. "
    "Tried to allocate 2.50 GiB. GPU 0 has ...')"
)


def test_memory_that_runs_out_names_what_to_lower(regente: Run, project: Path) -> None:
    own_project(project, line=OOM)
    ended = regente("train", "mine", "tracking=none")
    assert ended.code == 3
    (line,) = ended.lines
    assert line.startswith("out of memory on the device (2.50 GiB more were needed); lower data.batch_size")


def test_the_batch_can_be_halved_until_it_fits(regente: Run, project: Path) -> None:
    own_project(project, line=OOM)
    ended = regente("train", "mine", "tracking=none", "trainer.on_oom=halve")
    assert ended.code == 0, ended.err
    assert "out of memory: data.batch_size=16 trainer.accumulate_grad_batches=4" in ended.out


def test_a_model_with_batchnorm_refuses_to_be_halved_unless_allowed(regente: Run, project: Path) -> None:
    own_project(project, line=OOM)
    model = (
        (project / "own_models.py").read_text().replace("nn.Flatten(),", "nn.Flatten(), nn.BatchNorm1d(784),")
    )
    (project / "own_models.py").write_text(model)
    ended = regente("train", "mine", "tracking=none", "trainer.on_oom=halve")
    assert ended.code == 3
    assert "BatchNorm" in ended.err
    assert regente("train", "mine", "tracking=none", "trainer.on_oom=halve_batchnorm").code == 0
