"""The predictions of two runs for the same test samples, from `test.npz`; see training/callbacks/sample_predictions.py."""

import sys
import zipfile
from collections.abc import Sequence
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
            found.append(read_arrays(path / FILE, NEEDED))
        except FileNotFoundError:
            return f"{path.name} has no predictions of test samples ({FILE})"
        except (OSError, ValueError) as error:
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


def read_arrays(file: Path, needed: Sequence[str], *, optional: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of these names: numbers, one for each sample; `optional` ones may be missing, and hold anything.

    Raises:
        OSError: see open_regular.
        ValueError: when the file is damaged.
    """
    import numpy as np

    try:
        with open_regular(file) as opened, zipfile.ZipFile(opened) as archive:
            names = [name for name in (*needed, *optional) if f"{name}.npy" in archive.namelist()]
            if (size := sum(archive.getinfo(f"{name}.npy").file_size for name in names)) > LARGEST:
                raise ValueError(f"{size:,} bytes, more than {LARGEST:,}")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as arrays:
                found = {name: np.asarray(arrays[name]) for name in names}
        for each in found.values():
            if (
                each.dtype.kind == "U"
                and (np.frombuffer(each.tobytes(), each.dtype.str[0] + "u4") > sys.maxunicode).any()
            ):
                raise ValueError("a character that is none")
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise ValueError(f"{type(error).__name__}: {error}") from error
    of_samples = [found[name] for name in needed if name in found]
    if len(of_samples) < len(needed) or any(
        each.dtype.kind not in "iubf" or not each.ndim for each in of_samples
    ):
        raise ValueError(f"it has no numbers {', '.join(needed)}")
    if len({len(each) for each in of_samples}) != 1 or found["label"].shape != found["prediction"].shape:
        raise ValueError("its arrays do not belong together")
    return found
