"""What came of a job: `result.json` in its directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

from regente.jobs.job import RESULT, fits, read_json, types_of


@dataclass(frozen=True)
class Result:
    """The outcome of a training that ended well; its fields are those of the file."""

    best_epoch: int | None  # from 0; None where no weights were kept
    best_checkpoint: str | None  # path
    pruned: bool
    epochs: int
    metrics: dict[str, float]  # of the validation and the test of the best weights, and the monitored one
    monitor: dict[str, str]  # metric, mode
    seconds: float
    peak_megabytes: float
    samples_per_second: float  # in training, of all ranks


def read_result(job: Path) -> dict[str, Any]:
    """The result in a job directory; empty if there is none, it is damaged, or a field of Result has another type."""
    content, types = read_json(job / RESULT), types_of(Result)
    return content if all(fits(types.get(name, Any), value) for name, value in content.items()) else {}


def split_of(metric: str) -> tuple[str, str]:
    """The split that the name of a metric begins with, and the rest: `val/acc` and `val_acc` are `acc` of `val`.

    The split is empty where the name does not tell.
    """
    for split in ("train", "val", "test"):
        if metric.startswith((f"{split}/", f"{split}_")):
            return split, metric[len(split) + 1 :]
    return "", metric


def as_test_metrics(values: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """What was logged in a test, under names that say so: a task may log `acc` or `val/acc` in all of its loops."""
    named = {}
    for name, value in values.items():
        split, rest = split_of(name)
        named[name if split == "test" else f"test/{rest}"] = float(value)
    return named
