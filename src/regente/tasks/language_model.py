"""Language modelling."""

import math

from torch import Tensor

from regente.tasks.classifier import Classifier
from regente.tasks.supervised import Batch


class LanguageModel(Classifier):
    """Predicts the next word: cross-entropy, accuracy and perplexity, the exponential of the mean cross-entropy in nats."""

    means = ("loss", "acc", "entropy")

    def count(self, batch: Batch) -> dict[str, Tensor]:
        """Add a batch to the totals, as the classifier does; `entropy` is the cross-entropy whatever the loss is."""
        found = super().count(batch)
        self.totals[2] += found["loss"].sum(dtype=self.totals.dtype)
        return found

    def measures(self, means: dict[str, float]) -> dict[str, float]:
        perplexity = math.exp(min(means.pop("entropy"), 709.0))  # above it exp overflows
        return {**means, "perplexity": perplexity}
