"""Text generation with a trained language model."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sampling:
    """A word is drawn from the `top_k` most likely ones (None: all), logits divided by `temperature`; 0: the most likely."""

    temperature: float = 0.8
    top_k: int | None = 40


@torch.inference_mode()
def continue_text(
    model: nn.Module, start: Tensor, words: int, window: int, sampling: Sampling, generator: torch.Generator
) -> Tensor:
    """Word ids [B, T] int64 -> ids of the next `words` words, [B, words].

    For each word the model sees the last `window` words and keeps no state, as in training.
    """
    text = start
    for _ in range(words):
        logits = model(text[:, -window:])
        last = logits[:, -1] if logits.ndim == 3 else logits
        text = torch.cat([text, draw(last.float().cpu(), sampling, generator).to(text.device)], dim=1)
    return text[:, start.shape[1] :]


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Logits [B, K] -> word ids [B, 1]; never 0, the unknown word."""
    logits = logits.index_fill(1, torch.tensor([0]), -torch.inf)
    if sampling.temperature == 0:
        return logits.argmax(1, keepdim=True)
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    logits = logits - logits.amax(1, keepdim=True)  # so that no temperature overflows
    return torch.multinomial((logits / sampling.temperature).softmax(1), 1, generator=generator)
