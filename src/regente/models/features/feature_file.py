"""Features on disk: written block by block, so that a kill loses little, and memory-mapped by the readers."""

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
from regente.jobs.found_files import read_text
from regente.jobs.job import fits, write_json

COMMIT_SECONDS = 2.0  # work that a kill may cost
BITS = {torch.bfloat16: torch.uint16}  # numpy has no bfloat16: its bits are stored


class FeatureFile:
    """Features [N, D] of one split in a .npy file, and beside it the number of rows that are written."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.file, self.counter = folder / f"{name}.npy", folder / f"{name}.rows"
        self.shape, self.dtype = shape, dtype

    def num_written(self) -> int:
        """How many rows are certain to be on disk."""
        try:
            rows = json.loads(read_text(self.counter)) if self.file.is_file() else 0
        except (OSError, ValueError, RecursionError):
            return 0
        return rows if fits(int, rows) and 0 <= rows <= self.shape[0] else 0

    def write(self, blocks: Callable[[int], Iterator[Tensor]], advance: Callable[[int], None]) -> None:
        """Write the missing rows. `blocks(n)` gives those from row n on; `advance` gets the size of each block.

        Raises:
            OSError: when there is no room.
        """
        start, bits = self.num_written(), BITS.get(self.dtype, self.dtype)
        dtype = torch.empty(0, dtype=bits).numpy().dtype
        content = np.lib.format.open_memmap(self.file, "r+" if start else "w+", dtype, self.shape)
        if not start and hasattr(os, "posix_fallocate"):  # on a full disk a write to a mapped hole kills
            with self.file.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, self.file.stat().st_size)
        committed = time.monotonic()
        for block in blocks(start):
            content[start : start + len(block)] = block.to(self.dtype).view(bits).numpy()
            start += len(block)
            if time.monotonic() - committed > COMMIT_SECONDS:
                self._commit(content, start)
                committed = time.monotonic()
            advance(len(block))
        self._commit(content, start)

    def _commit(self, content: Any, rows: int) -> None:
        content.flush()  # msync: the rows are on disk before they are counted
        write_json(self.counter, rows)

    def read(self) -> Tensor:
        """The features, memory-mapped; writing to them does not change the file.

        Raises:
            DataError: when the file is damaged.
        """
        try:
            content = np.load(self.file, mmap_mode="c", allow_pickle=False)
            bits = torch.empty(0, dtype=BITS.get(self.dtype, self.dtype)).numpy().dtype
            if (content.shape, content.dtype) != (self.shape, bits) or self.num_written() != self.shape[0]:
                raise ValueError(
                    f"{content.dtype} {list(content.shape)} instead of {bits} {list(self.shape)}"
                )
        except Exception as error:  # numpy raises many kinds
            raise DataError(
                f"{self.file}: damaged ({error}); regente cache clear {self.file.parent.name}"
            ) from error
        return torch.from_numpy(content).view(self.dtype)
