"""Time series, cut into windows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval, Len
from torch import Tensor, nn

from regente.data.core.file_inputs import Inputs
from regente.data.core.in_memory import InMemory
from regente.data.core.scaling import Standardise, Unscale
from regente.data.core.sources import Batch
from regente.data.core.splitting import SPLITS, require_rest
from regente.data.core.tables import TABLES, Missing, first_row, numeric_columns, open_table, read_column
from regente.errors import ConfigError, DataError, Problem


@dataclass(frozen=True)
class SeriesWindows:
    """Every window of a table [N, D], with the label `horizon` rows after its last row.

    Sample i is rows i to i + window - 1; windows are copied only into batches.
    """

    table: Tensor  # [N, D] float32
    labels: Tensor  # [N] or [N, 1], one per row
    window: int
    horizon: int

    def __len__(self) -> int:
        return max(0, len(self.table) - self.window - self.horizon + 1)

    def batch(self, index: Tensor) -> Batch:
        """x [B, T, D] and y [B] or [B, 1]."""
        rows = index.unsqueeze(1) + torch.arange(self.window, device=index.device)
        x = self.table.index_select(0, rows.flatten()).view(len(index), self.window, -1)
        return x, self.labels.index_select(0, index + (self.window - 1 + self.horizon))

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.table, self.labels

    def to(self, device: torch.device) -> "SeriesWindows":
        return replace(self, table=self.table.to(device), labels=self.labels.to(device))


class Series(InMemory):
    """Forecasting: x [B, window, D] is `window` rows of the columns, y [B, 1] is the target `horizon` rows later.

    A file has one row per time step, in order of time. Split: the first rows train, the next validate, the last test;
    no window crosses a boundary. Columns and target are standardised by mean and standard deviation of the training
    rows. Without a file the data is `synthetic_series`, which has no licence and needs none.
    """

    suffixes = TABLES

    def __init__(
        self,
        batch_size: Annotated[int, Ge(1)],
        target: str,
        window: Annotated[int, Ge(1)],
        input_shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 2)],
        path: str | None = None,
        columns: Annotated[list[str], Len(1)] | None = None,
        horizon: Annotated[int, Ge(1)] = 1,
        val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.15,
        test_share: Annotated[float, Interval(gt=0, lt=1)] = 0.15,
        missing: Missing = "refuse",
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.path = Path(path).expanduser() if path else None
        self.columns, self.target, self.missing = columns, target, missing
        self.input_shape, self.window, self.horizon = list(input_shape), window, horizon
        self.shares = require_rest(val_share, test_share)
        self.names: list[str] = []
        self.scales: dict[str, tuple[float, float]] = {}  # mean and standard deviation of each column
        self.mean, self.std = 0.0, 1.0  # of the target

    @property
    def source(self) -> str:
        return str(self.path) if self.path else super().source

    @property
    def _where(self) -> str:
        """The series in an error message."""
        return str(self.path) if self.path else "the synthetic series"

    def read(self) -> dict[str, SeriesWindows]:
        table, target = self._columns()
        parts = self._rows_of_splits(len(target))
        scaled = np.stack([self._scaled(column, name, parts) for name, column in table.items()], axis=1)
        y = self._scaled(target, self.target, parts)
        self.mean, self.std = self.scales[self.target]
        self.names = list(table)
        return {
            name: SeriesWindows(
                torch.from_numpy(scaled[rows].astype(np.float32)),
                self.labels(target[rows], y[rows]),
                self.window,
                self.horizon,
            )
            for name, rows in parts.items()
        }

    def labels(self, values: np.ndarray, scaled: np.ndarray) -> Tensor:
        """The labels of the rows of a split, from the target in the units of the file and standardised, float64 [N]."""
        return torch.from_numpy(scaled.astype(np.float32)).unsqueeze(1)

    def _columns(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The columns that the model sees and the target, float64 [N] each."""
        if self.path is None:
            import pyarrow as pa

            table, path = pa.table(synthetic_series()), Path(self._where)
        else:
            table, path = open_table(self.path), self.path
        names = self.columns or numeric_columns(table)
        if not names:
            there = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
            raise DataError(
                f"{path}: no column of numbers, but {there}; a comma between columns and a point before decimals would be right"
            )
        found = {name: read_column(table, name, "data.columns", path, self.missing) for name in names}
        return found, read_column(table, self.target, f"data.target={self.target}", path, self.missing)

    def _rows_of_splits(self, total: int) -> dict[str, slice]:
        val, test = (int(total * share) for share in self.shares.values())
        cuts = [0, total - val - test, total - test, total]
        parts = {name: slice(*cuts[i : i + 2]) for i, name in enumerate(SPLITS)}
        for name, rows in parts.items():
            if rows.stop - rows.start < self.window + self.horizon:
                raise DataError(
                    f"{self._where}: of {total} rows {rows.stop - rows.start} are for {name}, but "
                    f"data.window={self.window} and data.horizon={self.horizon} need "
                    f"{self.window + self.horizon}; give a longer series, or a smaller data.window"
                )
        return parts

    def samples_of(self, file: Path) -> Inputs:
        """Every window of a file with the same columns, named by its last row; the last forecast lies after the file."""
        table, names = open_table(file), self.columns or self.names
        columns = [read_column(table, name, "a column", file, self.missing) for name in names]
        rows = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        if len(rows) < self.window:
            raise DataError(f"{len(rows)} rows; the model takes windows of {self.window}")
        windows = rows.unfold(0, self.window, 1).transpose(1, 2)
        return [(f"{file}:{number}", x) for number, x in enumerate(windows, start=self.window)]

    def raw(self, split: str, index: Tensor) -> Tensor:
        return self.preprocessing().inverse(super().raw(split, index))

    def preprocessing(self) -> Standardise:
        means, stds = zip(*(self.scales[name] for name in self.names), strict=True)
        return Standardise(torch.tensor(means, dtype=torch.float32), torch.tensor(stds, dtype=torch.float32))

    def postprocessing(self) -> nn.Module:
        return Unscale(self.mean, self.std)

    def fitted_state(self) -> dict[str, Any]:
        return {"columns": self.names, "scales": {name: list(scale) for name, scale in self.scales.items()}}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        self.columns = self.names = state["columns"]
        self.scales = {name: (mean, std) for name, (mean, std) in state["scales"].items()}
        self.mean, self.std = self.scales[self.target]

    def _scaled(self, column: np.ndarray, name: str, parts: Mapping[str, slice]) -> np.ndarray:
        """A column, standardised by its training rows or by the fitted state of an earlier run."""
        if name not in self.scales:
            self.scales[name] = self._scale(column, name, parts)
        mean, std = self.scales[name]
        return (column - mean) / std

    def _scale(self, column: np.ndarray, name: str, parts: Mapping[str, slice]) -> tuple[float, float]:
        """Mean and standard deviation of the training rows of a column."""
        train = column[parts["train"]]
        if train.min() == train.max():
            changed = column != column[0]
            until = f", until row {first_row(changed)}" if changed.any() else ""
            raise DataError(
                f"{self._where}: column {name!r} is {train[0]:g} in all {len(train)} training rows{until}; "
                "leave it out: data.columns=[...]"
            )
        return float(train.mean()), float(train.std())

    def verify(self, splits: Mapping[str, SeriesWindows]) -> None:
        right = [self.window, len(self.names)]
        if self.input_shape != right:
            by = "data.columns names" if self.columns else f"{self._where} has"
            what = (
                f"{self.input_shape} declared, but data.window={self.window}, and {by} {right[1]} columns of numbers "
                f"({', '.join(self.names)}); add data.input_shape=[{right[0]},{right[1]}]"
            )
            raise ConfigError([Problem("data.input_shape", what)])

    def unscale(self, y: Tensor) -> Tensor:
        """Targets or forecasts in the units of the file, the same shape."""
        return y * self.std + self.mean

    def naive_mae(self, split: str) -> float:
        """The mean absolute error of the naive forecast, that the target keeps its value, in the units of the file."""
        y = self.splits[split].labels[self.window - 1 :]
        return float((y[self.horizon :] - y[: -self.horizon]).abs().mean()) * self.std

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the columns that the weights need, and the scale of the forecast."""
        return {"columns": self.names, "target": self.target, "mean": self.mean, "std": self.std}


def synthetic_series(length: int = 4000) -> dict[str, np.ndarray]:
    """Hourly `load` with a daily and a weekly season, and the `weather` that changes it three hours later.

    load(t) = 20 + 3 sin(2 pi t / 24) + 2 sin(2 pi t / 168) + weather(t - 3) + noise(t), with
    weather(t) = 0.95 weather(t - 1) + 0.3 u(t), noise(t) = 0.5 noise(t - 1) + 0.2 v(t), and u, v normal.
    The mean absolute error of a forecast of the next hour is at least 0.16, which is E|0.2 v|.
    """
    draws = np.random.default_rng(0).standard_normal((2, length + 3))
    weather, noise = np.zeros(length + 3), np.zeros(length + 3)
    for t in range(1, length + 3):
        weather[t] = 0.95 * weather[t - 1] + 0.3 * draws[0, t]
        noise[t] = 0.5 * noise[t - 1] + 0.2 * draws[1, t]
    hours = np.arange(length)
    seasons = 20 + 3 * np.sin(2 * np.pi * hours / 24) + 2 * np.sin(2 * np.pi * hours / 168)
    return {"load": seasons + weather[:length] + noise[3:], "weather": weather[3:]}
