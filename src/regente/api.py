"""`regente.training.fit` and `regente.sweeps`: the way of the command line from a notebook or a program, with plain results."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regente.errors import RegenteError, Stopped
from regente.jobs.job import read_json

GPUS = "CUDA_VISIBLE_DEVICES"


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Within, things are as when a command line had these words, which is what a run records.

    Afterwards the program sees its GPUs again, which a job on the CPU does not, and can let go of what was imported.
    """
    before, cwd, gpus = sys.argv, str(Path.cwd()), os.environ.get(GPUS)
    if cwd not in sys.path:
        sys.path.append(cwd)  # the user's own models and data
    sys.argv = ["regente", *words]
    try:
        yield
    except Stopped as error:
        raise KeyboardInterrupt(error.name) from None
    finally:
        sys.argv = before
        os.environ.pop(GPUS, None)
        if gpus is not None:
            os.environ[GPUS] = gpus
        gc.unfreeze()


def train(experiment: str, overrides: Sequence[str]) -> dict[str, Any]:
    """One run, in this process if it has one rank."""
    from regente.jobs.hardware import require
    from regente.training.launch import launch
    from regente.training.request import checked, freeze_job

    with command_line(["train", experiment, *overrides]):
        composed, config = checked(experiment, overrides)
        require(config["trainer"])
        job = freeze_job(composed, Path("runs") / experiment)
        if code := launch(job, config, alone=True):
            raise RegenteError(f"{job.path}: the run ended with exit code {code}; see above")
    return result_of(job.path)


def sweep(experiment: str, overrides: Sequence[str], *, rerun: bool) -> list[dict[str, Any]]:
    """A sweep to its end."""
    from regente.sweeps.session import sweep

    with command_line(["train", "-m", experiment, *overrides]):
        _, states, folder = sweep(experiment, overrides, rerun=rerun)
    assert folder is not None
    shown = ("overrides", "state", "value", "reason", "pruned")
    return [
        {**{key: getattr(state, key) for key in shown}, **result_of(folder.path / state.directory)}
        for state in states
    ]


def result_of(path: Path) -> dict[str, Any]:
    """What a job left, with its directory and the id of its run in MLflow."""
    run_id = read_json(path / "recorded.json").get("run_id")
    return {**read_json(path / "result.json"), "job": str(path), "run_id": run_id}
