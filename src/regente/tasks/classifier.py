"""Classification."""

import torch.nn.functional as F
from torch import Tensor

from regente.tasks.supervised import Batch, Supervised, pair


class Classifier(Supervised):
    """Cross-entropy and accuracy of a model x -> logits [B, K], or [B, T, K] with labels [B, T]."""

    means = ("loss", "acc")

    def loss(self, batch: Batch) -> Tensor:
        x, y = pair(batch)
        return F.cross_entropy(self(x).flatten(0, -2), y.flatten())

    def count(self, batch: Batch) -> dict[str, Tensor]:
        """Sum of losses, correct answers, answers. The confidence of an answer is its probability."""
        x, y = pair(batch)
        logits, y = self(x).flatten(0, -2), y.flatten()
        loss, prediction = F.cross_entropy(logits.float(), y, reduction="none"), logits.argmax(-1)
        chosen, true = (
            logits.gather(-1, index.unsqueeze(-1)).squeeze(-1).float() for index in (prediction, y)
        )
        self.totals[0] += loss.sum(dtype=self.totals.dtype)
        self.totals[1] += (prediction == y).sum()
        self.totals[2] += y.numel()
        return {
            "label": y,
            "prediction": prediction,
            "loss": loss,
            "confidence": (chosen - true - loss).exp(),
        }
