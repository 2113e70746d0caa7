"""Batches cut by index from samples in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from regente.data.core.sources import Batch, EpochDependent, Source


class GroupedBatches:
    """The base of a task that may take several batches of a data module as one."""

    @property
    def batches_per_call(self) -> int:
        """How many batches come as one in `training_step`."""
        return 1


class Batches:
    """Batches of a source, in file order or, with a seed, in an order that is a function of (seed, epoch).

    Each of several ranks takes every world_size-th sample. A shuffled order is cut so that all ranks take the same
    number of steps. An order for evaluation has every sample once, in as many batches on each rank: a rank with fewer
    samples has smaller ones, or repeats one sample where it has too few for that (`repeated`).

    `group` batches come as one, for a task that takes an optimizer step for each of them. `fixed`: every epoch has
    the order of the first. `pin`: batches lie in pinned memory, so that their copy to a GPU does not block.
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
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.pin, self.group, self.fixed = pin, group, fixed
        self.epoch = 0
        self.begin = 0  # the batch with which the next iteration starts

    @property
    def sampler(self) -> "Batches":
        """Where Lightning looks for `set_epoch`."""
        return self

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = 0 if self.fixed else epoch
        if isinstance(self.source, EpochDependent):
            self.source.set_epoch(self.epoch)

    def order(self) -> Tensor:
        """This rank's sample numbers in this epoch, int64."""
        total = len(self.source)
        if self.seed is None:
            own = torch.arange(self.rank, total, self.world_size)
            return own if len(own) >= self.steps else torch.cat((own, torch.tensor([0])))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        usable = total - total % self.world_size
        return torch.randperm(total, generator=generator)[self.rank : usable : self.world_size]

    @property
    def steps(self) -> int:
        """Batches of `batch_size` in an epoch."""
        total = len(self.source)
        most = total // self.world_size if self.seed is not None else -(-total // self.world_size)
        return -(-most // self.batch_size)

    @property
    def repeated(self) -> int:
        """How many ranks evaluate a sample that another one has: with batches of one, or too few samples."""
        fewest, more = divmod(len(self.source), self.world_size)
        return self.world_size - more if self.seed is None and fewest < self.steps else 0

    def __len__(self) -> int:
        return -(-self.steps // self.group)

    def __iter__(self) -> Iterator[Batch]:
        begin, self.begin = self.begin, 0
        order = self.order().to(self.source.tensors[0].device)
        batches = order.split(self.batch_size * self.group)
        if len(batches) < len(self):
            batches = order.tensor_split(len(self))
        for index in batches[begin:]:
            x, y = self.source.batch(index)
            yield (x.pin_memory(), y.pin_memory()) if self.pin else (x, y)
