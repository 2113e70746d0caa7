"""Texts that a trained language model goes on with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from regente.data.words import detokenise, numbers, read_vocabulary, tokenise
from regente.errors import ConfigError, Problem
from regente.runs import Run, shown
from regente.trust import read_config
from regente.weights import load_model

VOCABULARY = "vocabulary.txt"  # in the job directory, so that the text itself need not be there


@dataclass(frozen=True)
class Sampling:
    """How a word is drawn: of the `top_k` likeliest (None: of all), with logits over `temperature`; 0 takes the best."""

    temperature: float = 0.8
    top_k: int | None = 40


def generate(run: Run, prompt: str, words: int, sampling: Sampling, seed: int) -> str:
    """The prompt, or a word drawn at random where it is empty, and the words that the run's model adds to it.

    Raises:
        ConfigError: when the run is not a language model's.
        CheckpointError: when its weights are missing or damaged.
    """
    config, file = read_config(run.job, Path.cwd(), ["data", "model"]), run.job.path / VOCABULARY
    if not file.is_file():  # SampleTexts writes it wherever the data is a text
        parts = " on ".join(run.job.choices.get(group, "?") for group in ("model", "data"))
        what = f"{parts} is no language model; name a run with data=text, regente train text_lstm makes one"
        raise ConfigError([Problem(f"run {shown(run.job.path)}", what)])
    model, vocabulary = load_model(run.job, run.checkpoint), read_vocabulary(file)
    key = torch.Generator().manual_seed(seed)
    begun = tokenise(prompt) or [vocabulary[int(torch.randint(1, len(vocabulary), (1,), generator=key))]]
    start = torch.tensor([numbers(begun, vocabulary)])
    added = go_on(model, start, words, config["data"]["input_shape"][0], sampling, key)
    return detokenise([*begun, *(vocabulary[number] for number in added[0].tolist())])


@torch.inference_mode()
def go_on(
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
