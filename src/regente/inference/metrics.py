"""Metrics of a run's weights on the validation and test split, and of each class. Imports torch and Lightning."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from rich.console import Console
from torchmetrics.functional import classification
from torchmetrics.functional.regression import mean_squared_error, r2_score

from regente.data.protocols import SupportsNotes
from regente.errors import ConfigError, Problem
from regente.jobs import console
from regente.jobs.checkpoint_files import load
from regente.jobs.hardware import fit_trainer
from regente.jobs.job import Job, write_json
from regente.jobs.runs import Run
from regente.tracking.lightning_logger import JournalLogger
from regente.tracking.recorder import Recorder
from regente.training.assemble import Parts, assemble
from regente.training.callbacks.sample_predictions import SamplePredictions
from regente.training.callbacks.step_seeding import StepSeeding
from regente.training.fit import has_test, has_validation, load_weights, metrics_of_test
from regente.training.performance import tune_process

SPLITS = ("val", "test")
HEADER = ("class", "precision", "recall", "f1", "support")
BINS = 15  # of the confidence, for the calibration error
Row = tuple[str, float, float, float, int]  # as HEADER


def evaluate_weights(
    job: Job, config: dict[str, Any], run: Run, recorder: Recorder, out: Console
) -> tuple[dict[str, float], dict[str, list[Row]]]:
    """Metrics of a run's weights on validation and test data, and a row for each class of either split.

    Writes `val.npz` and `test.npz` (see SamplePredictions), `val.csv` and `test.csv` (the rows) and `evaluation.json`
    to the job directory.
    """
    logger = JournalLogger(recorder.journal, job, recorder.redact)
    callbacks = [StepSeeding(config["seed"]), SamplePredictions(job.path, SPLITS)]
    parts, notes = loaded_parts(job, config, run, callbacks, logger)
    task: Any = parts.task
    recorder.require_store()
    metrics: dict[str, float] = {}
    validates = has_validation(parts)
    if not validates and not has_test(parts):
        what = "has neither validation_step nor test_step, with the data for it; there is nothing to evaluate"
        raise ConfigError([Problem(f"task._target_={config['task']['_target_']}", what)])
    if validates:
        parts.trainer.validate(task, datamodule=parts.data, verbose=False)
        metrics |= {name: float(value) for name, value in parts.trainer.callback_metrics.items()}
    if has_test(parts):
        metrics |= metrics_of_test(parts)
    for note in (*notes, *(parts.data.notes if isinstance(parts.data, SupportsNotes) else ())):
        console.note(out, note)
    rows = {}
    for split in SPLITS:
        if not (job.path / f"{split}.npz").is_file():
            continue
        found, rows[split] = sample_metrics(job.path / f"{split}.npz")
        more = {f"{split}/{name}": value for name, value in found.items()}
        metrics |= more
        if rows[split]:
            table = job.path / f"{split}.csv"
            write_rows(table, rows[split])
            recorder.journal.artifact(table, "classes")
        recorder.journal.write("metrics", step=0, values=more)
    write_json(job.path / "evaluation.json", {"checkpoint": str(run.checkpoint), "metrics": metrics})
    return metrics, rows


def loaded_parts(
    job: Job,
    config: dict[str, Any],
    run: Run,
    callbacks: Sequence[Callback] = (),
    logger: Logger | None = None,
) -> tuple[Parts, list[str]]:
    """Data, task with the weights of a run, and a trainer of one device; and notes about what differs from the request."""
    # one device sees every sample exactly once and in a fixed order
    single = {
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "overfit_batches": 0,
        "limit_train_batches": 0,
    }
    config["trainer"], notes = fit_trainer({**config["trainer"], **single})
    tune_process(config["trainer"]["accelerator"])
    fitted_state = run.fitted_state
    parts = assemble({**config, "callbacks": {}}, job, callbacks, logger, fitted_state=fitted_state)
    load_weights(parts.task, load(run.checkpoint), run.checkpoint)
    return parts, notes


def sample_metrics(predictions: Path) -> tuple[dict[str, float], list[Row]]:
    """Metrics of a split beyond loss and accuracy, from the file of its predictions.

    Classes: the expected calibration error (Naeini et al., 2015), and a row for each class. Values: the root mean
    squared error and R2.
    """
    with np.load(predictions) as found:
        label, prediction = (torch.from_numpy(found[name]) for name in ("label", "prediction"))
        if label.is_floating_point():
            label, prediction = label.flatten().double(), prediction.flatten().double()
            squared = mean_squared_error(prediction, label)
            return {"rmse": float(squared.sqrt()), "r2": float(r2_score(prediction, label))}, []
        names = [str(name) for name in found["names"]]
        if label.ndim > 1:
            return {}, []
        if "confidence" not in found:  # a task of the user's need not give it
            return {}, by_class(label, prediction, names)
        # rounding may give more than 1, which torchmetrics would take for logits
        confidence = torch.from_numpy(found["confidence"]).clamp(0, 1)
    error = classification.binary_calibration_error(confidence, (label == prediction).int(), n_bins=BINS)
    return {"ece": float(error)}, by_class(label, prediction, names)


def by_class(label: torch.Tensor, prediction: torch.Tensor, names: list[str]) -> list[Row]:
    """Precision, recall, F1 and number of samples of each class, from labels and predictions [N]."""
    number = max(len(names), int(label.max()) + 1, int(prediction.max()) + 1, 2)
    names = names if len(names) == number else [str(each) for each in range(number)]
    metrics = (
        classification.multiclass_precision,
        classification.multiclass_recall,
        classification.multiclass_f1_score,
    )
    scores = [metric(prediction, label, number, average=None).tolist() for metric in metrics]
    return list(zip(names, *scores, torch.bincount(label, minlength=number).tolist(), strict=True))


def write_rows(file: Path, rows: list[Row]) -> None:
    """Write the rows as CSV with HEADER."""
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([HEADER, *rows])
