"""A BERT small enough for tests, as save_pretrained leaves one, with a vocabulary of whole words and letters."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

WORDS = {
    "animals": ["cat", "dog", "cow", "hen", "fox", "owl", "bee", "ant"],
    "colours": ["red", "blue", "green", "black", "white", "brown", "pink", "grey"],
    "food": ["bread", "soup", "rice", "cake", "bean", "plum", "milk", "salt"],
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [
    *SPECIAL,
    *(word for words in WORDS.values() for word in words),
    *["the", "is", "and"],
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
]


def save_tiny_bert(folder: Path, words: list[str] | None = None, seed: int = 0) -> Path:
    """A folder with config, weights and tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = words or VOCABULARY
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


@cache
def tiny_bert() -> Path:
    """One for the whole session."""
    return save_tiny_bert(Path(mkdtemp(prefix="tiny-bert-")))


def sentences(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different texts of words of one class each, with the class."""
    key = torch.Generator().manual_seed(seed)
    found: dict[str, str] = {}
    while len(found) < number:
        label = list(WORDS)[len(found) % len(WORDS)]
        draw = torch.randint(
            len(WORDS[label]), (int(torch.randint(3, 9, (1,), generator=key)),), generator=key
        )
        found.setdefault("the " + " and ".join(WORDS[label][place] for place in draw), label)
    return list(found.items())


def save_csv(file: Path, number: int = 90) -> Path:
    """Columns text and label."""
    rows = [f"{text},{label}" for text, label in sentences(number)]
    file.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return file
