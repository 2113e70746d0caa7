"""MNIST."""

import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from regente.data.core.download import Published, whole
from regente.data.core.torchvision_images import TorchvisionImages


class MNIST(TorchvisionImages):
    """60,000 + 10,000 handwritten digits of 28x28 (LeCun et al., 1998).

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    Licence: CC BY-SA 3.0; what is downloaded has torchvision's MD5, and gzip's own checksum guards what is unpacked.
    """

    def kind(self) -> Any:
        from torchvision.datasets import MNIST as Source

        return Source

    def mirrors(self) -> Sequence[str]:
        """Folders on the web that have the files."""
        return [mirror for mirror in self.kind().mirrors if mirror.startswith("https:")]

    def published(self) -> Sequence[Published]:
        folder = f"{self.kind().__name__}/raw"
        return [
            Published(f"{folder}/{name}", md5, [mirror + name for mirror in self.mirrors()])
            for name, md5 in self.kind().resources
        ]

    def unpacked(self) -> Sequence[str]:
        return [file.place.removesuffix(".gz") for file in self.published()]

    def unpack(self, packed: Path, folder: Path) -> None:
        with whole(folder / packed.stem) as part, gzip.open(packed) as file, part.open("wb") as out:
            shutil.copyfileobj(file, out)

    def tensors(self, part: Any) -> tuple[Tensor, Tensor]:
        return part.data.unsqueeze(1), part.targets
