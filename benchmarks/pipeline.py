"""Samples per second of the data pipeline alone: Regente's `Batches` against torch's DataLoader.

An epoch is iterated, nothing is trained. Images are as many and as large as MNIST's, tokens a text of a million
characters, windows the series of `data=series`, made longer. Each variant ends with a batch that a model takes (images
as normalised float32), on one thread and without worker processes. Equality: the checksum of an epoch's samples,
whatever their order, is the same in all variants of a group.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from regente.data.core.batches import Batches
from regente.data.core.sources import Split
from regente.data.series import SeriesWindows, synthetic_series

ROUNDS = 5
MEAN, STD = 0.1307, 0.3081  # MNIST's
IMAGES, CHARACTERS, CONTEXT, ROWS, WINDOW = 60_000, 1_000_000, 64, 100_000, 32
Epoch = Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Tokens:
    """Windows of `CONTEXT` tokens, one after the other, each with its successor as label."""

    text: Tensor  # [N] int64

    def __len__(self) -> int:
        return (len(self.text) - 1) // CONTEXT

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        rows = index.unsqueeze(1) * CONTEXT + torch.arange(CONTEXT + 1)
        both = self.text.index_select(0, rows.flatten()).view(len(index), -1)
        return both[:, :-1], both[:, 1:]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.text,)

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(self.text.to(device))


class OneByOne(Dataset[Any]):
    """Samples as a Dataset that a user writes makes them: one in each call."""

    def __init__(self, size: int, sample: Callable[[int], Any]) -> None:
        self.size, self.sample = size, sample

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Any:
        return self.sample(number)


def images() -> dict[str, Epoch]:
    """Shuffled uint8 images, 60,000 of 1x28x28, in batches of 128."""
    from PIL import Image
    from torchvision import transforms

    key = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=key)
    y = torch.randint(0, 10, (IMAGES,), generator=key)
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])

    def sample(number: int) -> tuple[Tensor, Tensor]:
        """As torchvision's MNIST does, with the transforms of lightning-hydra-template."""
        return normalise(Image.fromarray(x[number, 0].numpy())), y[number]

    def normal(batches: Iterable[Any]) -> Iterable[Any]:
        return ((x.float().mul_(1 / (255 * STD)).sub_(MEAN / STD), y) for x, y in batches)

    loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
    pillow = DataLoader(OneByOne(IMAGES, sample), batch_size=128, shuffle=True)
    return {
        "regente": lambda: normal(Batches(Split(x, y), 128, seed=0)),
        "DataLoader(TensorDataset)": lambda: normal(loader),
        "DataLoader, PIL for each sample": lambda: pillow,
    }


def tokens() -> dict[str, Epoch]:
    """Shuffled windows of 64 tokens of a million, in batches of 64."""
    text = torch.randint(0, 65, (CHARACTERS,), generator=torch.Generator().manual_seed(0))
    source = Tokens(text)

    def sample(number: int) -> tuple[Tensor, Tensor]:
        begin = number * CONTEXT
        return text[begin : begin + CONTEXT], text[begin + 1 : begin + CONTEXT + 1]

    copied = TensorDataset(*source.batch(torch.arange(len(source))))
    return {
        "regente": lambda: Batches(source, 64, seed=0),
        "DataLoader(TensorDataset), copied": lambda: DataLoader(copied, batch_size=64, shuffle=True),
        "DataLoader, a slice for each sample": lambda: DataLoader(
            OneByOne(len(source), sample), batch_size=64, shuffle=True
        ),
    }


def windows() -> dict[str, Epoch]:
    """Shuffled windows of 32 rows of 2 columns, one begun at each of 100,000 rows, in batches of 64."""
    table = torch.from_numpy(np.stack(list(synthetic_series(ROWS).values()), axis=1).astype(np.float32))
    source = SeriesWindows(table, table[:, :1], WINDOW, 1)

    def sample(number: int) -> tuple[Tensor, Tensor]:
        return table[number : number + WINDOW], table[number + WINDOW, :1]

    copied = TensorDataset(*source.batch(torch.arange(len(source))))
    return {
        "regente": lambda: Batches(source, 64, seed=0),
        "DataLoader(TensorDataset), copied": lambda: DataLoader(copied, batch_size=64, shuffle=True),
        "DataLoader, a slice for each sample": lambda: DataLoader(
            OneByOne(len(source), sample), batch_size=64, shuffle=True
        ),
    }


def seconds(epoch: Epoch) -> float:
    """CPU seconds to iterate an epoch; not wall seconds, since others may use this machine."""
    begun = time.process_time()
    for _ in epoch():
        pass
    return time.process_time() - begun


def checksum(epoch: Epoch) -> tuple[int, int, int]:
    """Of an epoch's samples in any order, exact: how many, the sum of a number for each, and that of its square."""
    count = total = squares = 0
    for x, y in epoch():
        if x.ndim == 4:  # images as they were: two ways of normalising round differently
            x = ((x * STD + MEAN) * 255).round().long()
        row = torch.cat([whole(x), whole(y)], 1)
        values = (row * torch.arange(1, row.shape[1] + 1) ** 2).sum(1).tolist()
        count, total = count + len(y), total + sum(values)
        squares += sum(value * value for value in values)
    return count, total, squares


def whole(values: Tensor) -> Tensor:
    """Whole numbers [B, ...] int64; of floats their bits."""
    flat = values.reshape(len(values), -1)
    return flat.contiguous().view(torch.int32).long() if flat.is_floating_point() else flat.long()


def compare(name: str, variants: dict[str, Epoch]) -> None:
    """Interleaved rounds, each starting with another variant; then a line for each."""
    sums = {variant: checksum(epoch) for variant, epoch in variants.items()}
    first = sums["regente"]
    for variant, found in sums.items():
        assert found == first, f"{name}, {variant}: not the same samples, {found} not {first}"
    took: dict[str, list[float]] = {variant: [] for variant in variants}
    names = list(variants)
    for turn in range(ROUNDS):
        turn %= len(names)
        for variant in names[turn:] + names[:turn]:
            took[variant].append(seconds(variants[variant]))
    base = statistics.median(took["regente"])
    print(f"{name}, {first[0]:,} samples an epoch, the same in each")
    for variant, times in took.items():
        middle = statistics.median(times)
        print(
            f"  {variant:<36} {middle:7.3f} s ({min(times):.3f} to {max(times):.3f})  "
            f"{first[0] / middle:11,.0f} samples/s  ratio {middle / base:5.1f}"
        )


def main() -> None:
    torch.set_num_threads(1)
    load = f"{os.getloadavg()[0]:.1f}"
    print(
        f"{os.cpu_count()} cores, load {load}, 1 thread, CPU time, median of {ROUNDS} (least to most),",
        end=" ",
    )
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")
    compare("images 1x28x28, batch 128", images())
    compare(f"tokens, {CONTEXT} each, batch 64", tokens())
    compare(f"series, {WINDOW} rows of 2, batch 64", windows())


if __name__ == "__main__":
    main()
