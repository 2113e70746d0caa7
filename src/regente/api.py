"""The commands from a notebook or a program, with typed results; documented in docs/api.md."""

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.errors import ConfigError, DataError, Problem, RegenteError, Stopped
from regente.jobs.job import Job, open_job, read_json
from regente.jobs.result import read_result
from regente.jobs.runs import Run, find, job_directories

if TYPE_CHECKING:
    from torch import nn

    from regente.analysis.run_list import Runs

GPUS = "CUDA_VISIBLE_DEVICES"


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Inside, `sys.argv` has these words, which a run records as its command line, and the user's modules can be imported.

    At the end the program sees its GPUs again, which a job on the CPU hides, and the garbage collector looks at all
    objects again.
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


@dataclass(frozen=True)
class SweptJob:
    """What became of one job of a sweep."""

    overrides: list[str]
    state: str  # done, failed, killed, queued
    value: float | None  # of the monitored metric
    reason: str  # why it failed
    pruned: bool
    run: Run | None  # where it is done


def train(experiment: str = "digits_cnn", *overrides: str) -> Run:
    """Train as `regente train EXPERIMENT OVERRIDES` does; in this process if it has one rank.

    Raises:
        ConfigError: when it cannot run; then nothing was started.
        RegenteError: when it did not end well.
    """
    from regente.training.run import Request, SweepRequested, run

    with command_line(["train", experiment, *overrides]):
        try:
            ended = run(Request(experiment, overrides))
        except SweepRequested:
            what = "is a sweep of many jobs; regente.sweep() runs it"
            raise ConfigError([Problem(f"experiment {experiment}", what)]) from None
    if ended.exit_code:
        raise RegenteError(f"{ended.job.path}: the run ended with exit code {ended.exit_code}; see above")
    return find(str(ended.job.path), Path.cwd())


def sweep(experiment: str = "digits_cnn", *overrides: str, rerun: bool = False) -> list[SweptJob]:
    """Run all combinations as `regente train -m` does; jobs that are done are not run again, unless `rerun`.

    Raises:
        ConfigError: when a job cannot run; then none was started.
    """
    from regente.sweeps.session import sweep

    with command_line(["train", "-m", experiment, *overrides]):
        _, states, folder = sweep(experiment, overrides, rerun=rerun)
    assert folder is not None
    return [
        SweptJob(
            each.overrides, each.state, each.value, each.reason, each.pruned,
            find(str(folder.path / each.directory), Path.cwd()) if each.state == "done" else None,
        )
        for each in states
    ]  # fmt: skip


def runs(experiment: str | None = None) -> "Runs":
    """The finished runs of this project, of one experiment or of all, the oldest first; see `Runs`."""
    from regente.analysis.run_list import Runs

    folder = Path.cwd() / "runs" / (experiment or "")
    found = [path for path in job_directories(folder) if (path / "result.json").is_file()]
    return Runs(
        sorted(
            (Run(job, result) for job, result in _finished(found)),
            key=lambda run: (run.job.order, run.job.created),
        )
    )


def _finished(paths: Iterable[Path]) -> Iterator[tuple[Job, dict[str, Any]]]:
    """The jobs with their results; a damaged directory hides no other."""
    for path in paths:
        with suppress(RegenteError):
            if result := read_result(path):
                yield open_job(path), result


def evaluate(run: str | Run = "latest", *overrides: str) -> dict[str, float]:
    """Evaluate a run's model on its own data, or on other data; metrics by split, as `val/acc`.

    Raises:
        RegenteError: when there is no such run, or the evaluation did not end well.
    """
    from regente.inference.evaluate import evaluate

    found = _run(run)
    with command_line(["evaluate", str(found.job.path), *overrides]):
        ended = evaluate(found, overrides)
    if ended.exit_code:
        raise RegenteError(f"{ended.job.path}: it ended with exit code {ended.exit_code}; see above")
    metrics: dict[str, float] = read_json(ended.job.path / "evaluation.json")["metrics"]
    return metrics


def predict(
    inputs: Sequence[str | Path] = (), run: str | Run = "latest", *, skip_unreadable: bool = False
) -> list[dict[str, Any]]:
    """Predict with a run's model: a dict for each sample of the files, folders or texts, as `regente predict` writes it.

    Without inputs the samples are those of the run's own data, as `regente predict RUN` takes them.

    `skip_unreadable`: leave out the inputs that cannot be read.

    Raises:
        DataError: naming the inputs that cannot be read, with the reasons; with `skip_unreadable` if none can.
    """
    from regente.inference.predict import predict

    if not inputs:
        from regente.inference.predict_split import predict_split

        with command_line(["predict"]):
            return predict_split(_run(run)).rows
    found = predict(_run(run), [str(each) for each in inputs])
    if found.unreadable and not (skip_unreadable and found.rows):
        raise DataError("\n".join(found.unreadable))
    return found.rows


def load_model(run: str | Run = "latest") -> "nn.Module":
    """A run's network with its best weights, on the CPU, in eval mode: x as a training batch has it -> logits.

    Raises:
        TrackingError: when there is no such run.
        CheckpointError: when its weights are missing or damaged.
    """
    from regente.models.weights import load_model

    found = _run(run)
    return load_model(found.job, found.checkpoint)


def _run(run: str | Run) -> Run:
    return run if isinstance(run, Run) else find(run, Path.cwd())
