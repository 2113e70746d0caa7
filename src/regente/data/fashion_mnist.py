"""Fashion-MNIST."""

from collections.abc import Sequence
from typing import Any

from regente.data.mnist import MNIST


class FashionMNIST(MNIST):
    """60,000 + 10,000 photos of clothes in 10 classes, grey, 28x28 (Xiao, Rasul and Vollgraf, 2017).

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    Licence: MIT. Checksums: the MD5 of torchvision for downloads, that of gzip for unpacked files.
    """

    def kind(self) -> Any:
        from torchvision.datasets import FashionMNIST as Source

        return Source

    def mirrors(self) -> Sequence[str]:
        # torchvision's address is http; the authors have the same files in their repository
        return ["https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"]
