"""Random flip and crop."""

import torch
import torch.nn.functional as F
from torch import Tensor

from regente.data.augmentation.flip_crop import FlipCrop


def windows(image: Tensor, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Everything that the image [C, H, W] can become, and how."""
    padded, (height, width) = F.pad(image, [padding] * 4), image.shape[1:]
    return {
        bytes((cut.flip(2) if mirrored else cut).contiguous().numpy()): (top, left, mirrored)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
        for cut in [padded[:, top : top + height, left : left + width]]
        for mirrored in (False, True)
    }


def test_each_image_is_a_window_of_the_padded_one_mirrored_or_not_and_all_of_them_occur() -> None:
    image = torch.rand(3, 5, 7)
    possible = windows(image, 1)
    got = FlipCrop(padding=1)(image.expand(2000, -1, -1, -1))
    places = [possible[bytes(each.numpy())] for each in got]
    assert set(places) == set(possible.values())
    assert 850 < sum(mirrored for _, _, mirrored in places) < 1150


def test_images_of_a_batch_keep_their_places_and_channels() -> None:
    x = torch.rand(50, 3, 6, 6)
    for before, after in zip(x, FlipCrop(padding=2)(x), strict=True):
        assert bytes(after.numpy()) in windows(before, 2)


def test_without_flip_and_padding_nothing_changes() -> None:
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(FlipCrop(padding=0, flip=False)(x), x)
