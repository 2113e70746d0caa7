"""Ready batches, cut by index from what lies in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """Samples by number: what a split is, whatever it is made of."""

    def __len__(self) -> int:
        """How many samples there are."""

    def batch(self, index: Tensor) -> Batch:
        """Inputs and labels of the samples of these numbers, index [B] int64 on the device of the tensors."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All that the samples are made of: what a digest is taken of, and what moves to a device."""

    def to(self, device: torch.device) -> "Source":
        """The same on a device."""


@runtime_checkable
class Changing(Protocol):
    """A source whose samples are others in each epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""


@dataclass(frozen=True)
class Split:
    """Inputs x [N, ...] and labels y [N] or [N, ...], one of each for a sample."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> Batch:
        # index_select: about nine times faster than x[index] for small rows
        return self.x.index_select(0, index), self.y.index_select(0, index)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    def to(self, device: torch.device) -> "Split":
        return Split(self.x.to(device), self.y.to(device))


class Batches:
    """Ready batches of a source, in file order or, with a seed, in an order that is a function of (seed, epoch).

    With several ranks each takes every world_size-th sample; a shuffled order is cut so that all ranks take
    the same number of steps, an order of evaluation keeps every sample exactly once.

    `group` batches come as one, for a task that takes an optimizer step for each: see tasks/supervised.py.
    `fixed`: each epoch in the order of the first.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        pin: bool = False,
        group: int = 1,
        fixed: bool = False,
    ) -> None:
        self.group, self.fixed = group, fixed
        self.pin = pin  # the batches, so that their copy to a GPU does not wait
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.begin = 0  # the batch that the next iteration starts with

    @property
    def sampler(self) -> "Batches":
        """Where Lightning looks for `set_epoch`."""
        return self

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self.epoch = 0 if self.fixed else epoch
        if isinstance(self.source, Changing):
            self.source.set_epoch(self.epoch)

    def order(self) -> Tensor:
        """This rank's sample numbers in this epoch, int64."""
        total = len(self.source)
        if self.seed is None:
            return torch.arange(self.rank, total, self.world_size)
        key = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        usable = total - total % self.world_size
        return torch.randperm(total, generator=key)[self.rank : usable : self.world_size]

    @property
    def steps(self) -> int:
        """Batches of `batch_size` in an epoch."""
        total = len(self.source)
        own = total // self.world_size if self.seed is not None else len(self.order())
        return -(-own // self.batch_size)

    @property
    def on_every_rank(self) -> int:
        """Batches that no rank has fewer of."""
        return -(-(len(self.source) // self.world_size) // self.batch_size)

    def __len__(self) -> int:
        return -(-self.steps // self.group)

    def __iter__(self) -> Iterator[Batch]:
        begin, self.begin = self.begin, 0
        order = self.order().to(self.source.tensors[0].device)
        for index in order.split(self.batch_size * self.group)[begin:]:
            x, y = self.source.batch(index)
            yield (x.pin_memory(), y.pin_memory()) if self.pin else (x, y)
