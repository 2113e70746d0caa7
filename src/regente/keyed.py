"""Randomness as a function of a key instead of a running state."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch


@contextmanager
def keyed(device: torch.device, *key: int) -> Iterator[None]:
    """What torch draws inside, on the CPU and on this device, depends on the key alone; what it draws later does not."""
    seed = int.from_bytes(blake2b(repr(key).encode(), digest_size=7).digest())
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # not torch.manual_seed, which also seeds devices that are not put back
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield
