"""From text to words and back; nothing here needs torch."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

VOCABULARY = "vocabulary.txt"  # in the job directory, so that the text itself need not be there
UNKNOWN = "<unknown>"  # the word of number 0

# A word is letters, digits and _, with single dots, apostrophes and hyphens inside: it's, well-known, 3.14, str.join;
# each other mark is a word of its own
WORD = re.compile(r"\w+(?:[.'\u2019-]\w+)*|[^\w\s]")  # \u2019: a typographic apostrophe
# Blanks that readers do not expect: before closing marks, behind opening ones, within quotation marks
BLANKS = [(r" ([,.;:!?)\]}\u2026])", r"\1"), (r"([(\[{]) ", r"\1"), (r'" ([^"]*?) ?"', r'"\1"')]


def tokenise(text: str) -> list[str]:
    """The words and marks of a text, in lower case."""
    return WORD.findall(text.lower())


def detokenise(words: Iterable[str]) -> str:
    """A readable text that `tokenise` takes apart into the same words."""
    text = " ".join(words)
    for blank, mended in BLANKS:
        text = re.sub(blank, mended, text)
    return text


def numbers(words: Iterable[str], vocabulary: Sequence[str]) -> list[int]:
    """The number of each word; 0 for one that the vocabulary lacks."""
    known = {word: number for number, word in enumerate(vocabulary)}
    return [known.get(word, 0) for word in words]


def write_vocabulary(file: Path, vocabulary: Sequence[str]) -> None:
    """One word a line, in the order of their numbers."""
    file.write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")


def read_vocabulary(file: Path) -> list[str]:
    """The words that `write_vocabulary` wrote."""
    return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
