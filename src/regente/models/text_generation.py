"""Words that a trained language model adds to a text."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sampling:
    """How a word is drawn: of the `top_k` likeliest (None: of all), with logits over `temperature`; 0 takes the best."""

    temperature: float = 0.8
    top_k: int | None = 40


@torch.inference_mode()
def continue_text(
    model: nn.Module, start: Tensor, words: int, window: int, sampling: Sampling, key: torch.Generator
) -> Tensor:
    """Numbers [B, T] of words -> those of the next `words` words, [B, words].

    The model sees the last `window` words each time and keeps no state, as in training.
    """
    text = start
    for _ in range(words):
        logits = model(text[:, -window:])
        last = logits[:, -1] if logits.ndim == 3 else logits
        text = torch.cat([text, draw(last.float().cpu(), sampling, key).to(text.device)], dim=1)
    return text[:, start.shape[1] :]


def draw(logits: Tensor, sampling: Sampling, key: torch.Generator) -> Tensor:
    """Logits [B, K] -> a number for each, [B, 1]; never 0, the unknown word."""
    logits = logits.index_fill(1, torch.tensor([0]), -torch.inf)
    if sampling.temperature == 0:
        return logits.argmax(1, keepdim=True)
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    logits = logits - logits.amax(1, keepdim=True)  # so that no temperature overflows
    return torch.multinomial((logits / sampling.temperature).softmax(1), 1, generator=key)
