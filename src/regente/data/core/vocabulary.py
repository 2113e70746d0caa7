"""Text as words and as word ids. Imports no torch."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from regente.errors import DataError
from regente.jobs.found_files import read_text

VOCABULARY = "vocabulary.txt"  # in the job directory: `regente generate` does not need the text
UNKNOWN = "<unknown>"  # the word with id 0

# A word is letters, digits and _, with single dots, apostrophes and hyphens inside: it's, well-known, 3.14, str.join;
# each other mark is a word of its own
WORD = re.compile(r"\w+(?:[.'\u2019-]\w+)*|[^\w\s]")  # \u2019: a typographic apostrophe
# Spaces that a text does not have: before closing marks, after opening ones, inside quotation marks
SPACES = [(r" ([,.;:!?)\]}\u2026])", r"\1"), (r"([(\[{]) ", r"\1"), (r'" ([^"]*?) ?"', r'"\1"')]


def read_utf8(file: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        DataError: when the file cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} (0x{error.object[error.start]:02x})"
        raise DataError(f"{file}: {found} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def tokenise(text: str) -> list[str]:
    """The words and marks of a text, in lower case."""
    return WORD.findall(text.lower())


def detokenise(words: Iterable[str]) -> str:
    """A readable text that `tokenise` splits into the same words."""
    text = " ".join(words)
    for pattern, replacement in SPACES:
        text = re.sub(pattern, replacement, text)
    return text


def word_ids(words: Iterable[str], vocabulary: Sequence[str]) -> list[int]:
    """The id of each word, 0 for a word outside the vocabulary."""
    ids = {word: number for number, word in enumerate(vocabulary)}
    return [ids.get(word, 0) for word in words]


def write_vocabulary(file: Path, vocabulary: Sequence[str]) -> None:
    """One word per line, in the order of the ids."""
    file.write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")


def read_vocabulary(file: Path) -> list[str]:
    """The words of a file of `write_vocabulary`."""
    return read_text(file).removesuffix("\n").split("\n")
