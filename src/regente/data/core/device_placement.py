"""Where the samples are while batches are cut from them: in main memory, or on the device for the whole run."""

from collections.abc import Mapping
from typing import Literal

import torch

from regente.data.core.sources import Source
from regente.errors import MachineError

OnDevice = bool | Literal["auto"]


class DevicePlacement:
    """Copies the splits of a data set to the training device at their first use, if they are to be there."""

    def __init__(self, on_device: OnDevice) -> None:
        self.on_device = on_device
        self.moves: bool | None = None  # decided once, for all splits together
        self.moved: dict[str, Source] = {}

    def place(self, splits: Mapping[str, Source], name: str, device: torch.device) -> Source:
        """The split on the device, or where it is.

        Raises:
            MachineError: when `on_device` is true and the device has too little memory.
        """
        if self.moves is None:
            self.moves = moves_to_device(self.on_device, size_of(splits), free_memory(device))
        if not self.moves:
            return splits[name]
        if name not in self.moved:
            try:
                self.moved[name] = splits[name].to(device)
            except torch.OutOfMemoryError as error:
                size = f"{size_of(splits):,} bytes of data do not fit on {device}"
                raise MachineError(
                    f"data.on_device={self.on_device}: {size}; auto or false would be right"
                ) from error
        return self.moved[name]


def moves_to_device(on_device: OnDevice, size: int, free: int | None) -> bool:
    """Whether samples of `size` bytes move to a device with `free` bytes; None: it has no memory of its own.

    `auto` leaves at least half of the free memory to the model, its gradients and the optimizer.
    """
    return on_device if on_device != "auto" else free is not None and size < free / 2


def size_of(splits: Mapping[str, Source]) -> int:
    """Bytes of all splits."""
    return sum(tensor.nbytes for split in splits.values() for tensor in split.tensors)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a CUDA device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
