"""MNIST."""

import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from regente.data.core.download import Published, atomic_write
from regente.data.core.torchvision_images import TorchvisionImages


class MNIST(TorchvisionImages):
    """60,000 + 10,000 handwritten digits of 28x28 (LeCun et al., 1998); x is uint8 [N, 1, 28, 28].

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    Licence: CC BY-SA 3.0. Checksums: the MD5 of torchvision for downloads, that of gzip for unpacked files.
    """

    def kind(self) -> Any:
        from torchvision.datasets import MNIST as Source

        return Source

    def mirrors(self) -> Sequence[str]:
        """Addresses of folders that have the files."""
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
        with atomic_write(folder / packed.stem) as part, gzip.open(packed) as file, part.open("wb") as out:
            shutil.copyfileobj(file, out)

    def tensors(self, part: Any) -> tuple[Tensor, Tensor]:
        return part.data.unsqueeze(1), part.targets
