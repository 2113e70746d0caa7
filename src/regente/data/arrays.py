"""The arrays of a .npz file."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from regente.data.core.file_inputs import ARRAYS, Inputs, array_inputs
from regente.data.core.images import Images
from regente.data.core.sources import Split
from regente.data.core.tables import TABLES, numeric_columns, open_table, read_column
from regente.errors import DataError

Table = dict[str, np.ndarray]  # by name: x_train, y_train, ...


class Arrays(Images):
    """A .npz file with x_train, y_train, x_test, y_test and optionally x_val, y_val.

    x is uint8 [N, H, W], or [N, C, H, W] or [N, H, W, C] by `layout`, for images; or floating point [N, D], for
    the rows of a table. y is integer [N], from 0 on, or boolean. Split: without x_val, `num_val` training samples (null: a tenth)
    that depend on `split_seed` alone validate. `mean` and `std` are by default those of the training samples, of each
    channel or column. Nothing in the file is unpickled.
    """

    suffixes: ClassVar[tuple[str, ...]] = (*Images.suffixes, *TABLES)

    def __init__(
        self,
        path: str,
        num_classes: Annotated[int, Ge(2)],
        layout: Literal["NCHW", "NHWC"] = "NCHW",
        num_val: Annotated[int, Ge(1)] | None = None,
        split_seed: Annotated[int, Ge(0)] = 0,
        class_names: list[str] | None = None,
        mean: list[float] | None = None,
        std: list[Annotated[float, Gt(0)]] | None = None,
        **common: Any,
    ) -> None:
        names = class_names or [str(number) for number in range(num_classes)]
        super().__init__(num_classes=num_classes, class_names=names, mean=mean or [], std=std or [], **common)
        self.path, self.layout = Path(path).expanduser(), layout
        self.num_val, self.split_seed = num_val, split_seed

    @property
    def source(self) -> str:
        return str(self.path)

    def read(self) -> dict[str, Split]:
        table = read_arrays(self.path)
        names = ["train", "val", "test"] if "x_val" in table else ["train", "test"]
        splits = {name: self._split(table, name) for name in names}
        if "val" not in splits:
            splits["train"], splits["val"] = self._hold_out(splits["train"])
        if len(splits["train"]):
            self._measure(splits["train"].x)
        return splits

    def samples_of(self, file: Path) -> Inputs:
        """Images; or rows of a table, also from CSV and Parquet files with one column of numbers per input."""
        if file.suffix.lower() in ARRAYS:
            return array_inputs(file, self.input_shape, channels_last=self.layout == "NHWC")
        if len(self.input_shape) == 3:
            return super().samples_of(file)
        table = open_table(file)
        names = numeric_columns(table)
        if [len(names)] != self.input_shape:
            raise DataError(f"{len(names)} columns of numbers; {self.input_shape[0]} would be right")
        columns = [read_column(table, name, "a column", file, "refuse") for name in names]
        rows = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        return [(f"{file}:{number}", row) for number, row in enumerate(rows, start=1)]

    def _split(self, table: Table, name: str) -> Split:
        x, y = table[f"x_{name}"], table[f"y_{name}"]
        if problem := problem_of(x, y):
            raise DataError(
                f"data.path={self.path}: x_{name} {list(x.shape)}, y_{name} {list(y.shape)}: {problem}"
            )
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and self.layout == "NHWC":
            x = x.transpose(0, 3, 1, 2)
        x = np.ascontiguousarray(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32)
        return Split(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))

    def _hold_out(self, split: Split) -> tuple[Split, Split]:
        number = self.num_val or max(1, len(split) // 10)
        if number >= len(split):
            what = f"nothing left to train on; below {len(split)} would be right"
            raise DataError(f"data.num_val={number}: {what}")
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(self.split_seed))
        val, train = order[:number].sort().values, order[number:].sort().values
        return Split(*split.batch(train)), Split(*split.batch(val))

    def _measure(self, x: Tensor) -> None:
        """Compute mean and standard deviation of the training samples where they are not declared."""
        found = [mean_and_std(x[:, number]) for number in range(x.shape[1])]
        self.mean = self.mean or [mean for mean, _ in found]
        self.std = self.std or [std or 1.0 for _, std in found]  # 1 for a constant column


def mean_and_std(values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all values; uint8 values are fractions of white."""
    if values.dtype != torch.uint8:
        return values.double().mean().item(), values.double().std(correction=0).item()
    share = torch.bincount(values.flatten(), minlength=256).double() / values.numel()  # no copy in floats
    level = torch.arange(256, dtype=torch.float64) / 255
    mean = (share * level).sum().item()
    return mean, (share * (level - mean) ** 2).sum().sqrt().item()


def read_arrays(path: Path) -> Table:
    """The arrays of the file, without unpickling.

    Raises:
        DataError: when the file is missing, is not a .npz file, lacks an array or has an array of Python objects.
    """
    where = f"data.path={path}"
    if not path.is_file():
        raise DataError(f"{where}: no such file; name a .npz file, made with numpy.savez")
    with path.open("rb") as raw:  # np.load(path) leaves a damaged file open
        try:
            file = np.load(raw, allow_pickle=False)
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise DataError(f"{where}: cannot be read ({error}); a whole .npz file would be right") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(
                f"{where}: one array without a name; a .npz file, made with numpy.savez, would be right"
            )
        wanted = ["x_train", "y_train", "x_test", "y_test"]
        wanted += ["x_val", "y_val"] if {"x_val", "y_val"} & set(file.files) else []
        if missing := [name for name in wanted if name not in file.files]:
            has = ", ".join(file.files) or "nothing"
            raise DataError(f"{where}: has no {', '.join(missing)}; there is: {has}")
        return {name: _array(file, name, where) for name in wanted}


def _array(file: Any, name: str, where: str) -> np.ndarray:
    try:
        return np.asarray(file[name])
    except ValueError as error:  # numpy's error for an array of objects
        raise DataError(f"{where}: {name} holds Python objects; numbers alone would be right") from error
    except (OSError, EOFError, BadZipFile) as error:
        raise DataError(f"{where}: {name} is damaged ({error}); write the file again") from error


def problem_of(x: np.ndarray, y: np.ndarray) -> str | None:
    """What is wrong with inputs and labels and what would be right; None if nothing is wrong."""
    table = x.ndim == 2 and np.issubdtype(x.dtype, np.floating)
    if not table and not (x.ndim in (3, 4) and x.dtype == np.uint8):
        return (
            f"x is {x.dtype}; uint8 [N, H, W], [N, C, H, W] or [N, H, W, C], or float [N, D] would be right"
        )
    if y.ndim != 1 or not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        own = "values and several labels for a sample need a data module of your own"
        return f"y is {y.dtype}; whole numbers [N] would be right, {own}"
    if len(x) != len(y):
        return "different lengths; one label for each sample would be right"
    if x.size == 0:
        return "empty; at least one sample would be right"
    if table and not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        return f"x holds NaN or infinity, first in row {row}; finite numbers would be right"
    if y.min() < 0:
        return f"a label is {y.min()}; labels from 0 on would be right"
    return None
