"""Where the samples lie while batches are cut from them: in main memory, or on the device for the whole run."""

from collections.abc import Mapping
from typing import Literal

import torch

from regente.data.core.batches import Source
from regente.errors import MachineError

Choice = bool | Literal["auto"]


class DevicePlacement:
    """The splits of one data set on the device that trains, copied there when first used, if that is chosen."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.stays: bool | None = None  # decided once, for all splits together
        self.settled: dict[str, Source] = {}

    def settle(self, splits: Mapping[str, Source], name: str, device: torch.device) -> Source:
        """The split, on the device or where it is.

        Raises:
            MachineError: when it is told to lie on the device and does not fit.
        """
        if self.stays is None:
            self.stays = stays(self.choice, size_of(splits), free_on(device))
        if not self.stays:
            return splits[name]
        if name not in self.settled:
            try:
                self.settled[name] = splits[name].to(device)
            except torch.OutOfMemoryError as error:
                what = (
                    f"{size_of(splits):,} bytes of data do not fit on {device}; auto or false would be right"
                )
                raise MachineError(f"data.on_device={self.choice}: {what}") from error
        return self.settled[name]


def stays(choice: Choice, size: int, free: int | None) -> bool:
    """Whether samples of `size` bytes move to a device of `free` bytes, None being one without memory of its own.

    `auto` leaves at least half of what is free to the model, its gradients and the optimizer.
    """
    return choice if choice != "auto" else free is not None and size < free / 2


def size_of(splits: Mapping[str, Source]) -> int:
    """Bytes of all splits."""
    return sum(tensor.nbytes for split in splits.values() for tensor in split.tensors)


def free_on(device: torch.device) -> int | None:
    """Free bytes of a CUDA device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
