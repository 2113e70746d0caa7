"""Random numbers as a function of a key instead of a running state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

STEP, FETCH, VALIDATION, EPOCH = range(4)  # last part of a key: what the random numbers are for


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    """Inside, torch's random numbers on the CPU and on a CUDA device depend on the key alone; then the old state is back."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        seed_torch(device if cuda else torch.device("cpu"), *key)
        yield


def seed_torch(device: torch.device, *key: int) -> None:
    """Seed torch's generators of the CPU and of this device from the key: 8 us on a CPU."""
    seed = _hash(key, 7)
    # not torch.manual_seed: it also seeds other devices, and it takes half a millisecond to look for them
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def seed_all(device: torch.device, *key: int) -> None:
    """`seed_torch`, and the generators of Python and numpy, from which users' code may draw."""
    seed_torch(device, *key)
    seed = _hash(key, 4)
    random.seed(seed)
    np.random.seed(seed)


def _hash(key: tuple[int, ...], size: int) -> int:
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=size).digest())
