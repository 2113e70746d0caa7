"""Features of all samples of a split, by the backbone of a model."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from regente.jobs.hardware import cores
from regente.models.transfer import Transfer


@dataclass(frozen=True)
class Extractor:
    """A model's backbone on a device, in the precision `computed`; what comes out is kept in `kept`."""

    model: Transfer
    device: torch.device
    computed: torch.dtype
    kept: torch.dtype | None = None  # None: in what it comes

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, ...] -> features [B, D] on the CPU."""
        mixed = self.computed != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.computed, enabled=mixed):
            features = self.model.features(x.to(self.device))
        return features.to("cpu", self.kept or features.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """In what the features are kept."""
        if self.kept or self.computed == torch.float32:
            return self.kept or torch.float32
        group, self.model.group = self.model.group, None  # one image tells
        try:
            return self(torch.zeros(1, *self.model.shape)).dtype
        finally:
            self.model.group = group

    def blocks(self, take: Callable[[Tensor], Tensor], total: int, start: int) -> Iterator[Tensor]:
        """The features of the samples from number `start` on, in order, a group of the model's at a time.

        On a CPU each core takes a group of its own, which leaves none waiting for another.
        """
        assert self.model.group is not None
        if start == total:  # torch.split would give one group of none
            return
        numbers = torch.split(torch.arange(start, total), self.model.group)
        if self.device.type != "cpu":
            yield from (self(take(index)) for index in numbers)
            return
        with _one_thread_each() as pool:
            waiting: deque[Future[Tensor]] = deque()
            for index in numbers:
                waiting.append(
                    pool.submit(self, take(index))
                )  # taken here: what augments draws random numbers
                if len(waiting) > 2 * cores():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@contextmanager
def _one_thread_each() -> Iterator[ThreadPoolExecutor]:
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets reaches the matrix library of all
