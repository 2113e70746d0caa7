"""Samples from files that belong to no split, for prediction."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regente.errors import DataError

ARRAYS = (".npz", ".npy")
Inputs = list[tuple[str, Tensor]]  # name and raw sample, without a batch dimension


def read_array(file: Path) -> np.ndarray:
    """The array of a .npy file, or of a .npz file: x, else x_test, else the only one. Nothing is unpickled.

    Raises:
        DataError: when there is no such array, or the file cannot be read.
    """
    try:
        with file.open("rb") as raw:
            content = np.load(raw, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            name = next((name for name in ("x", "x_test") if name in content.files), None)
            if name is None and len(content.files) != 1:
                there = ", ".join(content.files) or "nothing"
                raise DataError(f"no array x in it; there is: {there}")
            return np.asarray(content[name or content.files[0]])
    except DataError:
        raise
    except Exception as error:  # numpy and zlib raise many kinds, MemoryError for a false size
        raise DataError(f"cannot be read as arrays ({error})") from error


def array_inputs(file: Path, shape: list[int], *, channels_last: bool = False) -> Inputs:
    """The samples of an array: uint8 images of `shape` [C, H, W], or float rows of `shape` [D].

    Raises:
        DataError: when the array has another shape or dtype.
    """
    x = read_array(file)
    if len(shape) == 3 and x.ndim == 3:
        x = x[:, None]
    elif channels_last and x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    wanted = "uint8" if len(shape) == 3 else "float"
    fits = x.dtype == np.uint8 if len(shape) == 3 else np.issubdtype(x.dtype, np.floating)
    if list(x.shape[1:]) != list(shape) or not fits:
        raise DataError(
            f"{x.dtype} {list(x.shape)}; {wanted} {['N', *shape]} would be right".replace("'", "")
        )
    whole = torch.from_numpy(np.ascontiguousarray(x, dtype=None if len(shape) == 3 else np.float32))
    return [(f"{file}[{number}]", sample) for number, sample in enumerate(whole)]
