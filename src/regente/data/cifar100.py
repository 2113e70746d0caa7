"""CIFAR-100."""

from typing import Any

from regente.data.cifar10 import CIFAR10


class CIFAR100(CIFAR10):
    """50,000 + 10,000 colour photos of 32x32 in 100 classes, their fine labels (Krizhevsky, 2009).

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    Licence: none stated, published for research. Its pickles are checked by MD5 as in CIFAR10.
    """

    def kind(self) -> Any:
        from torchvision.datasets import CIFAR100 as Source

        return Source
