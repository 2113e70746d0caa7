"""Text, for the prediction of the next word."""

import platform
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor

from regente.data.core.file_inputs import Inputs
from regente.data.core.in_memory import InMemory
from regente.data.core.sources import Windows
from regente.data.core.splitting import SPLITS, require_rest
from regente.data.core.vocabulary import UNKNOWN, detokenise, read_utf8, tokenise, word_ids
from regente.errors import ConfigError, DataError, Problem

SUFFIXES = {".txt", ".md"}
Share = Annotated[float, Interval(gt=0, lt=1)]


class Text(InMemory):
    """Windows of `window` words and the next word, from a UTF-8 file or a folder of *.txt and *.md.

    x [B, window] int64, y [B] int64: the next word, or with `every_position` [B, window]: the next word of each word.
    Vocabulary: the most frequent words of the training part, ties in order of the words; id 0 is every other word.
    Split: the words in file order, train | val | test by `val_share` and `test_share`; no window crosses a boundary.
    Default text: the prose of Python's own reference (`pydoc_data.topics` of the running Python, PSF licence).
    """

    suffixes = tuple(sorted(SUFFIXES))

    def __init__(
        self,
        batch_size: Annotated[int, Ge(1)],
        vocab_size: Annotated[int, Ge(2)],
        num_classes: Annotated[int, Ge(2)],
        input_shape: list[Annotated[int, Ge(1)]],
        window: Annotated[int, Ge(1)],
        path: str | None = None,
        stride: Annotated[int, Ge(1)] = 1,
        every_position: bool = False,
        val_share: Share = 0.1,
        test_share: Share = 0.1,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if num_classes != vocab_size:
            raise ValueError("each word is a class; num_classes is ${data.vocab_size}")
        if list(input_shape) != [window]:
            raise ValueError('input_shape is ["${data.window}"]')
        self.vocab_size, self.num_classes, self.input_shape = vocab_size, num_classes, list(input_shape)
        self.path, self.window, self.stride, self.every_position = path, window, stride, every_position
        self.shares = require_rest(val_share, test_share)
        self.vocabulary: list[str] = []

    @property
    def source(self) -> str:
        return self.path or f"pydoc_data.topics of Python {platform.python_version()}"

    @property
    def class_names(self) -> list[str]:
        """The word of each class."""
        return self.vocabulary

    def read(self) -> dict[str, Windows]:
        words, stream = _word_stream(self._texts())
        if not len(stream):
            raise DataError(f"{self._where}: no words in it")
        num_val, num_test = (int(len(stream) * share) for share in self.shares.values())
        sizes = [len(stream) - num_val - num_test, num_val, num_test]
        self.vocabulary = self.vocabulary or self._most_frequent(words, stream[: sizes[0]])
        table = np.array(word_ids(words, self.vocabulary), dtype=np.int64)
        parts = zip(SPLITS, torch.from_numpy(table[stream]).split(sizes), strict=True)
        return {name: Windows(part, self.window, self.stride, self.every_position) for name, part in parts}

    def fitted_state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]

    def samples_of(self, file: Path) -> Inputs:
        """The last words of each line, as many as fit into the window; the model predicts the next word."""
        lines = file.read_text(encoding="utf-8").removeprefix("\ufeff").splitlines()
        found = [(f"{file}:{number}", tokenise(line)) for number, line in enumerate(lines, start=1)]
        return [(name, self.word_ids(words)) for name, words in found if words]

    def word_ids(self, words: list[str]) -> Tensor:
        """The ids of the last words, [T] int64; T is at most the window."""
        return torch.tensor(word_ids(words[-self.window :], self.vocabulary))

    def verify(self, splits: Mapping[str, Windows]) -> None:
        for name, split in splits.items():
            if not len(split):
                raise DataError(
                    f"{self._where}: the {name} part has {len(split.stream)} words, and a window with its next word "
                    f"needs {self.window + 1}; give a longer text, or a smaller data.window"
                )

    def detokenise(self, ids: list[int]) -> str:
        """The text of these word ids."""
        return detokenise(self.vocabulary[number] for number in ids)

    @property
    def _where(self) -> str:
        return f"data.path={self.path}" if self.path else self.source

    def _texts(self) -> Iterator[str]:
        if self.path is None:
            yield from _python_reference()
            return
        path = Path(self.path).expanduser()
        if not path.exists():
            raise DataError(
                f"{self._where}: no such file or folder; leave data.path out for the default text"
            )
        files = (
            sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]
        )
        if not files:
            raise DataError(f"{self._where}: no *.txt or *.md in this folder; name a file, or another folder")
        for file in files:
            yield read_utf8(file)

    def _most_frequent(self, words: list[str], train: np.ndarray) -> list[str]:
        counts = np.bincount(train, minlength=len(words))
        ranked = sorted((-count, word) for count, word in zip(counts.tolist(), words, strict=True) if count)
        if self.vocab_size > len(ranked) + 1:
            what = (
                f"the training part of the text has {len(ranked)} different words, and one number is for unknown ones; "
                f"at most {len(ranked) + 1} would be right"
            )
            raise ConfigError([Problem(f"data.vocab_size={self.vocab_size}", what)])
        return [UNKNOWN, *(word for _, word in ranked[: self.vocab_size - 1])]


def _word_stream(texts: Iterator[str]) -> tuple[list[str], np.ndarray]:
    """All different words in order of appearance, and the texts as one stream of places in that list, int32 [N]."""
    places: Any = defaultdict()
    places.default_factory = places.__len__
    stream = array("i")
    for text in texts:
        for line in text.splitlines():
            stream.extend(map(places.__getitem__, tokenise(line)))
    return list(places), np.frombuffer(stream, dtype=np.int32)


def _python_reference() -> Iterator[str]:
    """The paragraphs that end like a sentence, each once, without marks of code and emphasis.

    This leaves out grammar, examples and repeated paragraphs.
    """
    from pydoc_data.topics import topics

    paragraphs = (part.strip() for name in sorted(topics) for part in topics[name].split("\n\n"))
    for part in dict.fromkeys(part for part in paragraphs if part.endswith((".", ":"))):
        yield part.translate({ord(mark): None for mark in '"*`'})
