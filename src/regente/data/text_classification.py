"""Texts with a label each, as numbers of an encoder's own tokens."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from regente.data.core.device_placement import OnDevice
from regente.data.core.file_inputs import Inputs
from regente.data.core.in_memory import InMemory
from regente.data.core.labelled_texts import Columns, LabelledTexts, read_texts
from regente.data.core.sources import Split
from regente.data.core.splitting import SPLITS, Members, carve_missing, members_of, require_rest
from regente.data.core.tokenizers import open_tokenizer, token_ids
from regente.errors import ConfigError, DataError, Problem

Share = Annotated[float, Interval(gt=0, lt=1)]


class TextClassification(InMemory):
    """Texts of a .csv, .csv.gz or .parquet file, or of a folder with a folder of *.txt for each class.

    x is int32 [N, T], the token ids of `tokenizer`. T is the length of the longest text, at most `max_tokens`; longer
    texts are cut, shorter ones padded. y is int64 [N], the place of the class in `class_names`, by default the sorted
    names. Split: by folders train, val, test, or by `split_column`. A missing val or test is carved out of the training
    samples of each class by the hash of (split_seed, text), so that equal texts stay together.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def __init__(
        self,
        path: str,
        tokenizer: str,
        vocab_size: Annotated[int, Ge(2)],
        num_classes: Annotated[int, Ge(2)],
        input_shape: list[Annotated[int, Ge(1)]],
        max_tokens: Annotated[int, Ge(3)],
        batch_size: Annotated[int, Ge(1)],
        class_names: list[str] | None = None,
        text_column: str = "text",
        label_column: str = "label",
        split_column: str | None = None,
        val_share: Share = 0.1,
        test_share: Share = 0.1,
        split_seed: Annotated[int, Ge(0)] = 0,
        seed: Annotated[int, Ge(0)] = 0,
        on_device: OnDevice = "auto",
    ) -> None:
        super().__init__(batch_size, seed, on_device)
        if list(input_shape) != [max_tokens]:
            raise ValueError('input_shape is ["${data.max_tokens}"]')
        self.path, self.tokenizer, self.max_tokens = Path(path).expanduser(), tokenizer, max_tokens
        self.vocab_size, self.num_classes, self.input_shape = vocab_size, num_classes, list(input_shape)
        self.class_names, self.columns = class_names, Columns(text_column, label_column, split_column)
        self.shares, self.split_seed = require_rest(val_share, test_share), split_seed

    @property
    def source(self) -> str:
        return str(self.path)

    def read(self) -> dict[str, Split]:
        found = read_texts(self.path, self.columns)
        names = self._names(found)
        labels = [names.index(label) for label in found.labels]
        members = self._members(found, labels, names)
        x, y = self._tokens(found.texts), torch.tensor(labels)
        rows = {name: torch.tensor(members[name], dtype=torch.int64) for name in SPLITS}
        return {name: Split(x[index], y[index]) for name, index in rows.items()}

    def verify(self, splits: Mapping[str, Split]) -> None:
        for name, split in splits.items():
            if not len(split):
                raise DataError(f"{self.path}: no text for {name}; add some, or leave the split out")

    def fitted_state(self) -> dict[str, Any]:
        return {"class_names": self.class_names}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        self.class_names = state["class_names"]

    def samples_of(self, file: Path) -> Inputs:
        """Each line is a text."""
        lines = file.read_text(encoding="utf-8").removeprefix("\ufeff").splitlines()
        named = [(f"{file}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
        if not named:
            raise DataError("no text in it; one in each line would be right")
        tokens = self._tokens([line for _, line in named], width=self.max_tokens)
        return [(name, row) for (name, _), row in zip(named, tokens, strict=True)]

    def _names(self, found: LabelledTexts) -> list[str]:
        self.class_names = names = self.class_names or found.classes
        if len(names) != self.num_classes:
            what = f"{self.path} has {len(names)} classes; data.num_classes={len(names)} would be right"
            raise ConfigError([Problem(f"data.num_classes={self.num_classes}", what)])
        if odd := sorted(set(found.labels) - set(names)):
            what = f"the class {odd[0]!r} is not among those of the training texts ({', '.join(names[:5])})"
            raise DataError(f"{self.path}: {what}; correct its label, or remove it")
        return names

    def _members(self, found: LabelledTexts, labels: list[int], names: list[str]) -> Members:
        members = members_of(found.splits)
        digests = [blake2b(text.encode(errors="surrogatepass")).digest() for text in found.texts]
        given = set(found.splits)
        note = carve_missing(self.path, members, given, digests, labels, names, self.split_seed, self.shares)
        self.notes += [note] if note else []
        return members

    def _tokens(self, texts: list[str], width: int | None = None) -> Tensor:
        """Padded token ids, int32 [N, T]; T is `width`, or the length of the longest text."""
        tokenizer = open_tokenizer("data.tokenizer", self.tokenizer)
        if len(tokenizer) != self.vocab_size:
            what = f"{self.tokenizer} has {len(tokenizer)} tokens; data.vocab_size={len(tokenizer)} would be right"
            raise ConfigError([Problem(f"data.vocab_size={self.vocab_size}", what)])
        rows = token_ids(tokenizer, texts, self.max_tokens)
        full = sum(len(row) == self.max_tokens for row in rows)
        if full > len(rows) // 10:
            count = f"{full:,} of {len(rows):,} texts"
            self.notes.append(f"{count} have data.max_tokens={self.max_tokens} tokens, some were cut")
        padded = torch.full(
            (len(rows), width or max(map(len, rows))), int(tokenizer.pad_token_id or 0), dtype=torch.int32
        )
        for number, row in enumerate(rows):
            padded[number, : len(row)] = torch.tensor(row, dtype=torch.int32)
        return padded
