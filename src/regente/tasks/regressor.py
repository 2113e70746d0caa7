"""Regression."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from regente.data.protocols import SupportsNaiveForecast, SupportsUnscale
from regente.errors import ConfigError, Problem
from regente.tasks.supervised import Batch, Supervised, pair


class Regressor(Supervised):
    """Mean squared error of a model x -> outputs of the shape of y, float [B, K].

    The loss is in the units that the model sees. The absolute error and the configured metrics are in the data's own, by
    the data module's `unscale(y)` where it has one; its `naive_mae(split)`, the error of no model at all, is logged too.
    """

    means = ("loss", "mae")

    def loss(self, batch: Batch) -> Tensor:
        x, y = pair(batch)
        return self.loss_by(F.mse_loss, self._outputs(x, y), y)

    def _outputs(self, x: Tensor, y: Tensor) -> Tensor:
        outputs: Tensor = self(x)
        if outputs.shape != y.shape:  # mse_loss would broadcast them
            hint = "the data wants task=classifier"
            if y.ndim == 2:
                hint = f"model.num_classes={y.shape[1]} gives an output for each"
            what = f"the model gives {list(outputs.shape)}, the targets are {list(y.shape)}; {hint}"
            raise ConfigError([Problem("model", what)])
        return outputs

    def count(self, batch: Batch) -> dict[str, Tensor]:
        """Sum of squared errors, of absolute errors in the data's units, samples."""
        x, y = pair(batch)
        outputs, y = self._outputs(x, y).float(), y.float()
        loss = (outputs - y).square().view(len(y), -1).mean(1)
        label, prediction = y, outputs
        if isinstance(self._data, SupportsUnscale):
            label, prediction = self._data.unscale(y), self._data.unscale(outputs)
        self.totals[0] += loss.sum(dtype=self.totals.dtype)
        if self.given_loss is not None:
            self.count_loss(outputs, y)
        self.totals[1] += (prediction - label).abs().view(len(y), -1).mean(1).sum(dtype=self.totals.dtype)
        self.totals[2] += len(y)
        self.update_metrics(prediction, label)
        return {"label": label, "prediction": prediction, "loss": loss}

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if isinstance(self._data, SupportsNaiveForecast):
            self.log_measures({"test/naive_mae": self._data.naive_mae("test")})

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]
