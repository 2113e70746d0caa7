"""Images with one label each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from regente.data.augmentation.per_image import per_image
from regente.data.core.class_folders import EXTENSIONS
from regente.data.core.decoding import decode
from regente.data.core.device_placement import OnDevice
from regente.data.core.file_inputs import ARRAYS, Inputs, array_inputs
from regente.data.core.in_memory import InMemory
from regente.data.core.scaling import Normalise
from regente.data.core.seeding import seeded
from regente.data.core.sources import Batch
from regente.errors import ConfigError, DataError, Problem

MODES = {1: "L", 3: "RGB"}  # PIL's, by channels


class Images(InMemory):
    """Images as uint8 [N, C, H, W], augmented and normalised on the device; a subclass reads them in `read`.

    `augment` takes x [B, C, H, W] float in 0 to 1 and returns the same shape; each image has parameters of its own,
    also those of torchvision.
    `mean` and `std` of each channel are fractions of white.
    """

    suffixes: ClassVar[tuple[str, ...]] = (*EXTENSIONS, *ARRAYS)

    def __init__(
        self,
        batch_size: Annotated[int, Ge(1)],
        num_classes: Annotated[int, Ge(2)],
        input_shape: list[Annotated[int, Ge(1)]],
        class_names: list[str] | None,
        mean: list[float],
        std: list[Annotated[float, Gt(0)]],
        augment: Callable[[Tensor], Tensor] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        on_device: OnDevice = "auto",
    ) -> None:
        super().__init__(batch_size, seed, on_device)
        self.num_classes, self.input_shape, self.class_names = num_classes, list(input_shape), class_names
        self.mean, self.std, self.augment = mean, std, per_image(augment)
        self._scales: dict[tuple[torch.device, int], Normalise] = {}  # by device and by the value of white

    def verify(self, splits: Mapping[str, Any]) -> None:
        for name, split in splits.items():
            if len(split) == 0:
                raise DataError(f"{type(self).__name__}: the {name} split is empty")
            if (shape := list(split.batch(torch.tensor([0]))[0].shape[1:])) != self.input_shape:
                raise _wrong("input_shape", f"{self.input_shape}, but samples are {shape}")
            if (largest := int(split.y.max())) >= self.num_classes:
                raise _wrong("num_classes", f"{self.num_classes}, but a label is {largest}")
            if name == "train" and (there := len(split.y.unique())) < self.num_classes:
                what = f"the training split has samples of {there} of {self.num_classes} classes"
                self.notes.append(f"{what}; the others cannot be learned")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.input_shape[0]:
                one_each = f"{self.input_shape[0]}, one for each channel, would be right"
                raise _wrong(name, f"{len(values)} numbers; {one_each}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise _wrong("class_names", f"{len(self.class_names)} names, {self.num_classes} classes")

    def fitted_state(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "class_names": self.class_names}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        self.mean, self.std, self.class_names = state["mean"], state["std"], state["class_names"]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: uint8 -> float32, augmented in training, normalised."""
        if self.features is not None:  # the batch holds features
            return batch
        (x, y), trainer = batch, self.trainer
        if self.augment and trainer and trainer.training and not trainer.overfit_batches:  # type: ignore[attr-defined]
            # batch_idx is still that of the batch before; global_step stands still while gradients are accumulated
            key = (trainer.current_epoch, trainer.fit_loop.batch_idx + 1, trainer.global_rank)
            x = self._augmented(x, *key)
        return self.normalise(x), y

    def _augmented(self, x: Tensor, *key: int) -> Tensor:
        """x [B, C, H, W] uint8 -> float32 in 0 to 1, changed as a function of (seed, *key)."""
        assert self.augment is not None
        with torch.no_grad(), seeded(x.device, self.seed, *key):
            return self.augment(x.float().div_(255))

    def model_inputs(self, split: str, index: Tensor) -> Tensor:
        return self.normalise(super().model_inputs(split, index))

    def augmented_inputs(self, split: str, index: Tensor) -> Tensor:
        x = super().model_inputs(split, index % len(self.splits[split]))
        return self.normalise(self._augmented(x, int(index[0])))

    def normalise(self, x: Tensor) -> Tensor:
        """x [B, C, ...] uint8, or float in 0 to 1 -> (x - mean) / std in units of white, float32."""
        white = 255 if x.dtype == torch.uint8 else 1
        if (x.device, white) not in self._scales:
            self._scales[x.device, white] = Normalise(self.mean, self.std, x.ndim - 2, white).to(x.device)
        normalised: Tensor = self._scales[x.device, white](x)
        return normalised

    def samples_of(self, file: Path) -> Inputs:
        """An image, decoded as in `ImageFolder`; or the array x of a .npz or .npy file."""
        if file.suffix.lower() in ARRAYS:
            return array_inputs(file, self.input_shape)
        channels, height, width = self.input_shape
        if channels not in MODES or height != width:
            raise DataError(
                f"images become squares of 1 or 3 channels, but the model takes {self.input_shape}"
            )
        pixels = decode(file.read_bytes(), height, MODES[channels])
        return [(str(file), torch.from_numpy(pixels))]

    def preprocessing(self) -> nn.Module:
        dimensions = len(self.input_shape) - 1
        return Normalise(self.mean, self.std, dimensions, 255 if dimensions else 1)


def _wrong(setting: str, what: str) -> ConfigError:
    return ConfigError([Problem(f"data.{setting}", what)])
