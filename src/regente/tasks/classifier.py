"""Classification."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from regente.tasks.supervised import Batch, Supervised, pair


class Classifier(Supervised):
    """Cross-entropy and accuracy of a model x -> logits [B, K], or [B, T, K] with labels [B, T].

    A configured loss gets logits [N, K] and labels [N]; a metric gets probabilities [N, K], one for two classes
    (torchmetrics' Binary...) those of class 1, and labels [N].
    """

    means: ClassVar[tuple[str, ...]] = ("loss", "acc")

    def loss(self, batch: Batch) -> Tensor:
        x, y = pair(batch)
        return self.loss_by(F.cross_entropy, self(x).flatten(0, -2), y.flatten())

    def count(self, batch: Batch) -> dict[str, Tensor]:
        """Sum of losses, correct answers, answers.

        `loss` of an answer is its cross-entropy, its confidence is its probability.
        """
        x, y = pair(batch)
        logits, y = self(x).flatten(0, -2).float(), y.flatten()
        entropy, prediction = F.cross_entropy(logits, y, reduction="none"), logits.argmax(-1)
        chosen, true = (logits.gather(-1, index.unsqueeze(-1)).squeeze(-1) for index in (prediction, y))
        self.totals[0] += entropy.sum(dtype=self.totals.dtype)
        if self.given_loss is not None:
            self.count_loss(logits, y)
        self.totals[1] += (prediction == y).sum()
        self.totals[-1] += y.numel()
        if self.given_metrics:
            self.update_metrics(logits.softmax(-1), y)
        return {
            "label": y,
            "prediction": prediction,
            "loss": entropy,
            "confidence": (chosen - true - entropy).exp(),
        }

    def update_metrics(self, predictions: Tensor, targets: Tensor) -> None:
        for metric in self.given_metrics:
            binary = any(each.__name__.startswith("Binary") for each in type(metric).__mro__)
            metric.update(predictions[:, 1] if binary else predictions, targets)  # type: ignore[operator]
