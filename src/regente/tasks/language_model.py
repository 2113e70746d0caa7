"""Language modelling."""

import math

from regente.tasks.classifier import Classifier


class LanguageModel(Classifier):
    """Telling the next word: cross-entropy, accuracy and perplexity, the exponential of the mean cross-entropy in nats."""

    def measures(self, loss: float, acc: float) -> dict[str, float]:
        return {
            **super().measures(loss, acc),
            "perplexity": math.exp(min(loss, 709.0)),
        }  # above it exp overflows
