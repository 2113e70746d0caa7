"""Validation and test of a run's weights once more, with tables by class. Imports all that is heavy."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback
from rich.console import Console
from torchmetrics.functional import classification, mean_squared_error, r2_score

from regente.jobs import console
from regente.jobs.hardware import fit_trainer
from regente.jobs.job import Job, write_json
from regente.jobs.runs import Run
from regente.models.weights import load_model
from regente.tracking.logger import JournalLogger
from regente.tracking.recorder import Recorder
from regente.training.callbacks.sample_predictions import SamplePredictions
from regente.training.callbacks.step_seeding import StepSeeding
from regente.training.parts import assemble
from regente.training.performance import tune_process

SPLITS = ("val", "test")
HEAD = ("class", "precision", "recall", "f1", "support")
BINS = 15  # of confidence, for the calibration error
Row = tuple[str, float, float, float, int]  # HEAD


def evaluation(
    job: Job, config: dict[str, Any], found: Run, recorder: Recorder, out: Console
) -> tuple[dict[str, float], dict[str, list[Row]]]:
    """Metrics of a run's weights on validation and test data, and a row for each class of either split.

    In the job directory: `val.npz` and `test.npz` (see SamplePredictions), `val.csv` and `test.csv` with the rows.
    """
    model = load_model(found.job, found.checkpoint)
    # one device, which sees every sample exactly once, in the order of training
    trainer = {**config["trainer"], "devices": 1, "num_nodes": 1, "strategy": "auto", "overfit_batches": 0}
    trainer["limit_train_batches"] = 0
    config["trainer"], notes = fit_trainer(trainer)
    tune_process(config["trainer"]["accelerator"])
    logger = JournalLogger(recorder.journal, str(job.path), job.experiment, job.path.name)
    every: list[Callback] = [StepSeeding(config["seed"]), SamplePredictions(job.path, SPLITS)]
    parts = assemble({**config, "callbacks": {}}, job, every, logger, fitted_state=found.fitted_state)
    task: Any = parts.task
    task.model.load_state_dict(model.state_dict())
    data: Any = parts.data
    recorder.require_store()
    metrics: dict[str, float] = {}
    for look in (parts.trainer.validate, parts.trainer.test):
        look(task, datamodule=data, verbose=False)
        metrics |= {name: float(value) for name, value in parts.trainer.callback_metrics.items()}
    for note in (*notes, *getattr(data, "notes", ())):
        console.note(out, note)
    rows = {}
    for split in SPLITS:
        if (job.path / f"{split}.npz").is_file():
            more, rows[split] = measure(job.path / f"{split}.npz")
            metrics |= {f"{split}/{name}": value for name, value in more.items()}
            if rows[split]:
                write_rows(job.path / f"{split}.csv", rows[split])
                recorder.journal.write("artifact", path=str(job.path / f"{split}.csv"), to="classes")
            recorder.journal.write("metrics", step=0, values={f"{split}/{k}": v for k, v in more.items()})
    write_json(job.path / "evaluation.json", {"checkpoint": str(found.checkpoint), "metrics": metrics})
    return metrics, rows


def measure(outcomes: Path) -> tuple[dict[str, float], list[Row]]:
    """What is measured of a split beyond loss and accuracy: of classes the expected calibration error (Naeini et al.,
    2015) and a row for each, of values root mean squared error and R2.
    """
    with np.load(outcomes) as found:
        arrays = {name: torch.from_numpy(found[name]) for name in ("label", "prediction")}
        label, prediction = arrays["label"], arrays["prediction"]
        if label.is_floating_point():
            label, prediction = label.flatten().double(), prediction.flatten().double()
            squared = mean_squared_error(prediction, label)
            return {"rmse": float(squared.sqrt()), "r2": float(r2_score(prediction, label))}, []
        names = [str(name) for name in found["names"]]
        # above 1 by rounding, they would be taken for logits
        confidence = torch.from_numpy(found["confidence"]).clamp(0, 1)
    error = classification.binary_calibration_error(confidence, (label == prediction).int(), n_bins=BINS)
    return {"ece": float(error)}, by_class(label, prediction, names)


def by_class(label: torch.Tensor, prediction: torch.Tensor, names: list[str]) -> list[Row]:
    """Precision, recall, F1 and number of samples of each class, from labels and predictions [N]."""
    number = max(len(names), int(label.max()) + 1, int(prediction.max()) + 1, 2)
    names = names if len(names) == number else [str(each) for each in range(number)]
    scores = [
        score(prediction, label, number, average=None).tolist()
        for score in (
            classification.multiclass_precision,
            classification.multiclass_recall,
            classification.multiclass_f1_score,
        )
    ]
    return list(zip(names, *scores, torch.bincount(label, minlength=number).tolist(), strict=True))


def write_rows(file: Path, rows: list[Row]) -> None:
    """As CSV, under HEAD."""
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([HEAD, *rows])
