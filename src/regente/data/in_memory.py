"""Data that fits in memory: tensors, and ready batches cut from them by index."""

from abc import abstractmethod
from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt
from pytorch_lightning import LightningDataModule
from torch import Tensor

from regente.errors import ConfigError, DataError, Problem


class Split(NamedTuple):
    """Images x [N, C, H, W] uint8 and labels y [N] int64."""

    x: Tensor
    y: Tensor


class Batches:
    """Ready batches of a split, in file order or, with a seed, in an order that is a function of (seed, epoch).

    With several ranks each takes every world_size-th sample; a shuffled order is cut so that all ranks take
    the same number of steps, an order of evaluation keeps every sample exactly once.
    """

    def __init__(
        self, split: Split, batch_size: int, *, seed: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    @property
    def sampler(self) -> "Batches":
        """Where Lightning looks for `set_epoch`."""
        return self

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """This rank's sample numbers in this epoch, int64."""
        total = len(self.split.y)
        if self.seed is None:
            return torch.arange(self.rank, total, self.world_size)
        key = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        usable = total - total % self.world_size
        return torch.randperm(total, generator=key)[self.rank : usable : self.world_size]

    def __len__(self) -> int:
        total = len(self.split.y)
        own = total // self.world_size if self.seed is not None else len(self.order())
        return -(-own // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self.order().split(self.batch_size):
            # index_select: about nine times faster than x[index] for small rows
            yield self.split.x.index_select(0, index), self.split.y.index_select(0, index)


class InMemory(LightningDataModule):
    """Images as uint8 in memory, normalised on the device; a subclass reads them in `read`."""

    def __init__(
        self,
        batch_size: Annotated[int, Ge(1)],
        num_classes: Annotated[int, Ge(2)],
        input_shape: list[Annotated[int, Ge(1)]],
        class_names: list[str],
        mean: list[float],
        std: list[Annotated[float, Gt(0)]],
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.num_classes, self.input_shape, self.class_names = num_classes, list(input_shape), class_names
        self.mean, self.std = mean, std
        self.splits: dict[str, Split] = {}

    @abstractmethod
    def read(self) -> dict[str, Split]:
        """The splits `train`, `val` and `test`; they share no sample and do not depend on the seed of the run."""

    def setup(self, stage: str) -> None:
        """Read the splits once and hold what the config declares against them."""
        if self.splits:
            return
        splits = self.read()
        for name, (x, y) in splits.items():
            if len(y) == 0:
                raise DataError(f"{type(self).__name__}: the {name} split is empty")
            if list(x.shape[1:]) != self.input_shape:
                raise ConfigError(
                    [Problem("data.input_shape", f"{self.input_shape}, but images are {list(x.shape[1:])}")]
                )
            if int(y.max()) >= self.num_classes:
                raise ConfigError(
                    [Problem("data.num_classes", f"{self.num_classes}, but a label is {int(y.max())}")]
                )
        if len(self.class_names) != self.num_classes:
            raise ConfigError(
                [Problem("data.class_names", f"{len(self.class_names)} names, {self.num_classes} classes")]
            )
        self.splits = splits

    def identity(self) -> dict[str, Any]:
        """Name, source, digest (of every image and label) and sizes, as a tracking store wants them."""
        digest = blake2b(digest_size=16)
        for _, split in sorted(self.splits.items()):
            for tensor in split:
                digest.update(tensor.contiguous().numpy().data)
        sizes = {name: len(split.y) for name, split in self.splits.items()}
        return {
            "name": type(self).__name__,
            "source": self.source,
            "digest": digest.hexdigest(),
            "splits": sizes,
        }

    @property
    def source(self) -> str:
        """Where the data comes from: a path, or the name of a package."""
        return type(self).__module__

    def train_dataloader(self) -> Batches:
        """Shuffled batches."""
        return self._batches("train", self.seed)

    def val_dataloader(self) -> Batches:
        """Batches in file order."""
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        """Batches in file order."""
        return self._batches("test")

    def _batches(self, name: str, seed: int | None = None) -> Batches:
        ranks: dict[str, Any] = {}
        if self.trainer is not None:
            ranks = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return Batches(self.splits[name], self.batch_size, seed=seed, **ranks)

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        """On the device: uint8 to float32 with the declared mean and standard deviation taken out."""
        x, y = batch
        return self.normalise(x), y

    def normalise(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] uint8 -> (x / 255 - mean) / std, float32."""
        mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return x.float().mul_(1 / (255 * std)).sub_(mean / std)
