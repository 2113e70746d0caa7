"""Tokens a second of the text pipeline: Regente's windows against `DataLoader(TensorDataset)` on windows made before.

One thread, 220,000 tokens, windows of 20, batches of 128, shuffled; interleaved A B B A; the best of the rounds.
Equality: an epoch of either gives the same windows with the same next words.
"""

import time
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from regente.data.core.batches import Batches
from regente.data.core.sources import Windows

TOKENS, LENGTH, BATCH, ROUNDS = 220_000, 20, 128, 3


def rows(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """All windows with their next words, in an order of their own."""
    table = torch.cat([torch.cat([x, y.unsqueeze(1)], dim=1) for x, y in batches])
    return table[sorted(range(len(table)), key=table.tolist().__getitem__)]


def seconds(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    begun = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - begun


def main() -> None:
    torch.set_num_threads(1)
    stream = torch.randint(1000, (TOKENS,), generator=torch.Generator().manual_seed(0))
    windows = Windows(stream, LENGTH)
    x, y = windows.batch(torch.arange(len(windows)))
    sides = {
        "regente": Batches(windows, BATCH, seed=0),
        "DataLoader": DataLoader(TensorDataset(x.contiguous(), y.contiguous()), BATCH, shuffle=True),
    }
    assert torch.equal(*(rows(side) for side in sides.values()))
    best = dict.fromkeys(sides, float("inf"))
    for number in range(ROUNDS):
        for name in [*sides, *reversed(sides)] if number % 2 else [*reversed(sides), *sides]:
            best[name] = min(best[name], seconds(sides[name]))
    for name, taken in best.items():
        print(f"{name:<12}{len(windows) * LENGTH / taken / 1e6:8.2f} million tokens/s")
    print(f"ratio       {best['DataLoader'] / best['regente']:8.1f}")


if __name__ == "__main__":
    main()
