"""CIFAR-10."""

import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regente.data.core.download import Published, md5_of
from regente.data.core.torchvision_images import TorchvisionImages


class CIFAR10(TorchvisionImages):
    """50,000 + 10,000 colour photos of 32x32 in 10 classes (Krizhevsky, 2009); x is uint8 [N, 3, 32, 32].

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    Licence: none stated, published for research. The batches are pickles, which can run code:
    the archive is unpacked only if it has the MD5 of torchvision, which checks the MD5 of each batch before unpickling.
    """

    def kind(self) -> Any:
        from torchvision.datasets import CIFAR10 as Source

        return Source

    def published(self) -> Sequence[Published]:
        kind = self.kind()
        return [Published(kind.filename, kind.tgz_md5, [kind.url] if kind.url.startswith("https:") else [])]

    def unpacked(self) -> Sequence[str]:
        kind = self.kind()
        names = [name for name, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
        return [f"{kind.base_folder}/{name}" for name in names]

    def unpack(self, packed: Path, folder: Path) -> None:
        if (got := md5_of(packed)) != self.kind().tgz_md5:
            raise ValueError(f"its MD5 is {got} instead of {self.kind().tgz_md5}")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part, tarfile.open(packed) as archive:
            archive.extractall(part, filter="data")
            (folder / self.kind().base_folder).mkdir(exist_ok=True)
            for place in self.unpacked():
                (Path(part) / place).replace(folder / place)

    def tensors(self, part: Any) -> tuple[Tensor, Tensor]:
        # torchvision gives [N, H, W, C]
        return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)
