"""RandAugment, held against torchvision's operations, one image at a time."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from regente.data.augmentation.rand_augment import COLOURS, GEOMETRIC, RandAugment, colour_operations

STRENGTH = 0.3
UP, DOWN = 1 + 0.9 * STRENGTH, 1 - 0.9 * STRENGTH


def photo(channels: int) -> Tensor:
    """A smooth picture, uint8 [1, C, 20, 30]."""
    small = torch.randint(30, 220, (1, channels, 4, 6), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small.float(), (20, 30), mode="bicubic").round().byte()


def expected(name: str, x: Tensor, sign: int) -> Tensor:
    factor = UP if sign > 0 else DOWN
    whole = {
        "brightness": lambda: tv.adjust_brightness(x, factor),
        "contrast": lambda: tv.adjust_contrast(x, factor),
        "saturation": lambda: tv.adjust_saturation(x, factor),
        "sharpness": lambda: tv.adjust_sharpness(x, factor),
        "posterize": lambda: tv.posterize(x, 8 - round(4 * STRENGTH)),
        "solarize": lambda: tv.solarize(x, 255 * (1 - STRENGTH)),
        "autocontrast": lambda: tv.autocontrast(x),
        "equalize": lambda: tv.equalize(x),
    }
    return whole[name]() / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", COLOURS)
def test_a_change_of_colour_is_torchvisions(name: str, sign: int, channels: int) -> None:
    x = photo(channels)
    got = colour_operations(STRENGTH)[name](x / 255, torch.tensor([float(sign)]))
    assert (
        got - expected(name, x, sign)
    ).abs().max() < 0.013  # torchvision rounds to 1/255, some steps twice


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_geometric_operation_is_torchvisions_in_one_direction_or_the_other(name: str) -> None:
    x = photo(3) / 255

    def move(sign: int) -> Tensor:
        angle, shear = sign * 30 * STRENGTH, sign * math.degrees(math.atan(0.3 * STRENGTH))
        across, down = (sign * 150 / 331 * STRENGTH * size for size in (30, 20))
        arguments = {
            "rotate": (angle, [0.0, 0.0], [0.0, 0.0]),
            "shear_x": (0.0, [0.0, 0.0], [shear, 0.0]),
            "shear_y": (0.0, [0.0, 0.0], [0.0, shear]),
            "translate_x": (0.0, [across, 0.0], [0.0, 0.0]),
            "translate_y": (0.0, [0.0, down], [0.0, 0.0]),
        }[name]
        turn, shift, sheared = arguments
        return tv.affine(x, turn, shift, 1.0, sheared, InterpolationMode.BILINEAR)

    augment = RandAugment(num_ops=1, magnitude=30 * STRENGTH)
    got = [augment._geometric(x, [name], torch.tensor([float(sign)])) for sign in (-1, 1)]
    want = [move(-1), move(1)]
    if (got[0] - want[0]).abs().mean() > (got[0] - want[1]).abs().mean():
        want.reverse()
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() < 1e-3


def test_of_magnitude_zero_only_what_has_no_strength_changes_an_image() -> None:
    x = torch.rand(300, 3, 8, 8) * 0.5 + 0.25
    got = RandAugment(num_ops=1, magnitude=0)(x)
    changed = (got - x).abs().amax((1, 2, 3)) > 1e-5
    assert 10 < changed.sum() < 90  # autocontrast and equalize: two of fourteen


def test_each_of_the_fourteen_changes_is_drawn() -> None:
    assert len(set(COLOURS) | set(GEOMETRIC) | {"identity"}) == 14
