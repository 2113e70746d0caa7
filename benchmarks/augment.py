"""Milliseconds to augment a batch of 128 images on one core: Regente's flip_crop and rand_augment against kornia's.

Interleaved, the median of 15; equality: what either flip_crop makes of an image is a window of that image, padded and
mirrored or not. kornia's RandAugment draws one choice of operations for the whole batch, Regente's one for each image.
"""

import statistics
import time
from collections.abc import Callable

import kornia.augmentation as kornia
import torch
import torch.nn.functional as F
from torch import Tensor

from regente.data.augmentation.flip_crop import FlipCrop
from regente.data.augmentation.rand_augment import RandAugment

ROUNDS, PADDING = 15, 4
Augment = Callable[[Tensor], Tensor]


def milliseconds(ours: Augment, theirs: Augment, x: Tensor) -> tuple[float, float]:
    """The medians of both, one after the other in each round."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 2):
        for times, augment in zip(taken, (ours, theirs), strict=True):
            start = time.perf_counter()
            augment(x)
            if number >= 2:  # warm
                times.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[0]), statistics.median(taken[1])


def is_window(got: Tensor, image: Tensor) -> bool:
    """Whether an image [C, H, W] is a window of another, padded with black, mirrored or not."""
    height, width = image.shape[1:]
    padded = F.pad(image, [PADDING] * 4)
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)  # [C, places, places, H, W]
    return any(
        bool((windows - each[:, None, None]).abs().amax((0, 3, 4)).lt(1e-6).any())
        for each in (got, got.flip(2))
    )


def main() -> None:
    torch.set_num_threads(1)
    for size in ((1, 28, 28), (3, 32, 32), (3, 160, 160)):
        x = torch.rand(128, *size)
        crop = kornia.RandomCrop(size[1:], padding=PADDING, cropping_mode="slice")
        theirs = kornia.AugmentationSequential(kornia.RandomHorizontalFlip(p=0.5), crop, same_on_batch=False)
        ours = FlipCrop(PADDING)
        for augment in (ours, theirs):
            assert all(is_window(got, image) for got, image in zip(augment(x)[:8], x, strict=False))
        pairs: list[tuple[str, Augment, Augment]] = [("flip_crop", ours, theirs)]
        if size[0] == 3:  # kornia's takes no grey images
            pairs.append(("rand_augment", RandAugment(2, 9), kornia.auto.RandAugment(n=2, m=9)))
        for name, mine, other in pairs:
            a, b = milliseconds(mine, other, x)
            print(
                f"{name:<13} {'x'.join(map(str, size)):<10} {a:7.2f} ms, kornia {b:7.2f} ms: {b / a:.1f} times as fast"
            )


if __name__ == "__main__":
    main()
