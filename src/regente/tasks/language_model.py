"""Language modelling."""

import math

from regente.tasks.classifier import Classifier


class LanguageModel(Classifier):
    """Predicts the next word: cross-entropy, accuracy and perplexity, the exponential of the mean cross-entropy in nats."""

    def measures(self, means: dict[str, float]) -> dict[str, float]:
        return {**means, "perplexity": math.exp(min(means["loss"], 709.0))}  # above it exp overflows
