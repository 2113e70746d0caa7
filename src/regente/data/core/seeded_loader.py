"""Batches of any loader, with an order and random numbers that depend on (seed, epoch)."""

from collections.abc import Iterator
from typing import Any

import torch

from regente.data.core.seeding import EPOCH, FETCH, seed_all


class SeededLoader:
    """The batches of a loader as a function of (seed, epoch), from any batch of the epoch on.

    The generators of torch, numpy and Python are seeded at the start of an epoch and before each batch. Worker
    processes have generators of their own, which run on from batch to batch: an epoch that starts in its middle
    therefore loads the earlier batches and drops them.
    """

    def __init__(self, loader: Any, seed: int, rank: int) -> None:
        self.loader, self.seed, self.rank = loader, seed, rank
        self.epoch, self.begin = 0, 0  # begin: the batch with which the next iteration starts
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
                if each is not None and hasattr(each, "set_epoch"):  # as torch's DistributedSampler has it
                    each.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        begin, self.begin = self.begin, 0
        cpu, number = torch.device("cpu"), 0
        seed_all(cpu, self.seed, self.epoch, 0, self.rank, EPOCH)
        batches = iter(self.loader)
        while True:
            seed_all(cpu, self.seed, self.epoch, number, self.rank, FETCH)
            try:
                batch = next(batches)
            except StopIteration:
                return
            if number >= begin:
                yield batch
            number += 1
