"""Features of all samples of a split, computed by the backbone of a model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from regente.data.core.parallel import map_in_order
from regente.models.backbone_with_head import BackboneWithHead


@dataclass(frozen=True)
class Extractor:
    """A model's backbone on a device. It computes in `computed`; features are stored in `stored`."""

    model: BackboneWithHead
    device: torch.device
    computed: torch.dtype
    stored: torch.dtype | None = None  # None: the dtype of the results

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, ...] -> features [B, D] on the CPU."""
        mixed = self.computed != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.computed, enabled=mixed):
            features = self.model.features(x.to(self.device))
        return features.to("cpu", self.stored or features.dtype)

    def stored_dtype(self, inputs: Callable[[Tensor], Tensor]) -> torch.dtype:
        """The dtype in which features are stored; under autocast one sample shows it."""
        if self.stored or self.computed == torch.float32:
            return self.stored or torch.float32
        return self(inputs(torch.arange(1))).dtype

    def blocks(self, inputs: Callable[[Tensor], Tensor], total: int, start: int) -> Iterator[Tensor]:
        """The features of the samples from number `start` on, in order, a batch of the backbone at a time.

        On a CPU each core computes a batch of its own, so that no core waits for another.
        """
        assert self.model.backbone_batch_size is not None
        if start == total:  # torch.split would give one empty batch
            return
        batches = map(inputs, torch.split(torch.arange(start, total), self.model.backbone_batch_size))
        if self.device.type != "cpu":
            yield from map(self, batches)
            return
        threads = torch.get_num_threads()
        try:
            yield from map_in_order(self, batches, start_thread=partial(torch.set_num_threads, 1))
        finally:
            torch.set_num_threads(
                threads
            )  # a setting of one thread reaches the matrix library of all threads
