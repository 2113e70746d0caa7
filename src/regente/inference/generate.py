"""`regente generate`: continues a text with the language model of a finished run."""

from pathlib import Path

import torch

from regente.data.core.vocabulary import VOCABULARY, detokenise, read_vocabulary, tokenise, word_ids
from regente.errors import CheckpointError, ConfigError, Problem
from regente.jobs.runs import Run, shown
from regente.jobs.trust import read_config
from regente.models.text_generation import Sampling, continue_text
from regente.models.weights import load_model


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
    try:
        vocabulary = read_vocabulary(file)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{shown(file)}: cannot be read ({error}); name another run") from error
    model = load_model(run.job, run.checkpoint)
    key = torch.Generator().manual_seed(seed)
    begun = tokenise(prompt) or [vocabulary[int(torch.randint(1, len(vocabulary), (1,), generator=key))]]
    start = torch.tensor([word_ids(begun, vocabulary)])
    added = continue_text(model, start, words, config["data"]["input_shape"][0], sampling, key)
    if (most := max(added[0].tolist(), default=0)) >= len(vocabulary):
        raise CheckpointError(f"{shown(file)}: has no word {most}, which the model gives; name another run")
    return detokenise([*begun, *(vocabulary[number] for number in added[0].tolist())])
