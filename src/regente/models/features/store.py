"""Features on disk: written block by block, so that a kill loses none, and mapped by whoever reads them."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regente.errors import DataError
from regente.jobs.job import write_json

COMMIT = 2.0  # seconds of work that a kill may cost
BITS = {torch.bfloat16: torch.uint16}  # which numpy does not know: kept as the bits


class Table:
    """Features [N, D] of one split in a .npy file, and how many rows of it are there."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.file, self.note = folder / f"{name}.npy", folder / f"{name}.rows"
        self.shape, self.dtype = shape, dtype

    def rows(self) -> int:
        """How many rows an earlier process has left, all of them sure to be on disk."""
        try:
            return int(json.loads(self.note.read_text())) if self.file.is_file() else 0
        except (OSError, ValueError):
            return 0

    def fill(self, blocks: Callable[[int], Iterator[Tensor]], done: Callable[[int], None]) -> None:
        """Write the rows that are missing; `blocks` gives those from a number on, `done` hears of each block.

        Raises:
            OSError: when there is no room.
        """
        start = self.rows()
        content = np.lib.format.open_memmap(
            self.file, "r+" if start else "w+", _numpy(self.dtype), self.shape
        )
        if not start and hasattr(os, "posix_fallocate"):  # on a full disk, to write to a mapped hole kills
            with self.file.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.file.stat().st_size)
        committed = time.monotonic()
        for block in blocks(start):
            content[start : start + len(block)] = (
                block.to(self.dtype).view(BITS.get(self.dtype, self.dtype)).numpy()
            )
            start += len(block)
            if time.monotonic() - committed > COMMIT:
                self._commit(content, start)
                committed = time.monotonic()
            done(len(block))
        self._commit(content, start)

    def _commit(self, content: Any, rows: int) -> None:
        content.flush()  # msync: the rows are on disk before it is said that they are
        write_json(self.note, rows)

    def open(self) -> Tensor:
        """The features, mapped; writing to them changes no file.

        Raises:
            DataError: when the file is damaged.
        """
        try:
            content = np.load(self.file, mmap_mode="c", allow_pickle=False)
            if content.shape != self.shape or self.rows() != self.shape[0]:
                raise ValueError(f"{list(content.shape)} instead of {list(self.shape)}")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.file}: damaged ({error}); regente cache clear {self.file.parent.name}"
            ) from error
        return torch.from_numpy(content).view(self.dtype)


def size_of(folder: Path) -> int:
    """Bytes that a folder takes."""
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def _numpy(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=BITS.get(dtype, dtype)).numpy().dtype
