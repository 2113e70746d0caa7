"""The predictions of two runs for the same test samples, from `test.npz`; see training/callbacks/sample_predictions.py."""

import zipfile
from pathlib import Path
from typing import Any

from regente.jobs.found_files import open_regular

FILE = "test.npz"
NEEDED = ("label", "prediction", "loss")
LARGEST = 1_000_000_000  # bytes, unpacked


def test_scores(first: Path, second: Path, metric: str) -> tuple[str, Any, Any] | str:
    """The metric that the predictions give, and an array of it for each run: 1 where right, or the loss; else why not.

    `metric`: `loss` takes the loss; anything else takes what is right, of classes.
    """
    found = []
    for path in (first, second):
        try:
            found.append(_read(path / FILE))
        except FileNotFoundError:
            return f"{path.name} has no predictions of test samples ({FILE})"
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            return f"{path.name}/{FILE}: damaged ({error})"
    a, b = found
    if a["label"].shape != b["label"].shape or not (a["label"] == b["label"]).all():
        return "they were tested on different samples"
    classes = a["label"].dtype.kind in "iub"
    if metric == "loss" or not classes:
        return "test/loss", a["loss"], b["loss"]
    return "test/acc", _right(a), _right(b)


def _right(found: dict[str, Any]) -> Any:
    """For each sample whether the class is right; of a sequence the share of its positions."""
    right = found["label"] == found["prediction"]
    return right.reshape(len(right), -1).mean(axis=1)


def _read(file: Path) -> dict[str, Any]:
    import numpy as np

    with open_regular(file) as opened:
        with zipfile.ZipFile(opened) as archive:
            sizes = [archive.getinfo(f"{name}.npy").file_size for name in NEEDED]
        if sum(sizes) > LARGEST:
            raise ValueError(f"{sum(sizes):,} bytes, more than {LARGEST:,}")
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in NEEDED}
    if len({len(each) for each in found.values()}) != 1 or found["label"].shape != found["prediction"].shape:
        raise ValueError("its arrays do not belong together")
    return found
