"""Any loader's batches, in an order and with random numbers that follow from keys."""

from collections.abc import Iterator
from typing import Any

import torch

from regente.data.core.seeding import EPOCH, FETCH, reseed_all


class SeededLoader:
    """The batches of a loader as a function of (seed, epoch), from any batch of the epoch on.

    Torch, numpy and Python are seeded when an epoch begins and before each batch is asked for. Workers draw numbers of
    their own, which go on from batch to batch: so an epoch begun in its middle loads what comes before, and drops it.
    """

    def __init__(self, loader: Any, seed: int, rank: int) -> None:
        self.loader, self.seed, self.rank = loader, seed, rank
        self.epoch, self.begin = 0, 0  # begin: the batch that the next iteration starts with
        self.sampler = self  # where Lightning looks for `set_epoch`

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch
        for sampler in (getattr(self.loader, "sampler", None), getattr(self.loader, "batch_sampler", None)):
            for each in (sampler, getattr(sampler, "sampler", None)):
                if each is not None and hasattr(each, "set_epoch"):
                    each.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        begin, self.begin = self.begin, 0
        cpu = torch.device("cpu")
        reseed_all(cpu, self.seed, self.epoch, 0, self.rank, EPOCH)
        batches, number = iter(self.loader), 0
        while True:
            reseed_all(cpu, self.seed, self.epoch, number, self.rank, FETCH)
            try:
                batch = next(batches)
            except StopIteration:
                return
            if number >= begin:
                yield batch
            number += 1
