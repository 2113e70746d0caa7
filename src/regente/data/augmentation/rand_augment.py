"""RandAugment."""

import math
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

COLOURS = (
    *("brightness", "contrast", "saturation", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
MAX_MAGNITUDE = 30.0


class RandAugment:
    """`num_ops` of fourteen operations in turn, drawn for each image (Cubuk et al., 2020).

    Operations and strengths are those of torchvision's RandAugment. Geometric ones are bilinear, about the centre, and
    fill with black; saturation leaves a grey image as it is. x [B, C, H, W] float in 0 to 1, C 1 or 3 -> the same.
    """

    def __init__(
        self, num_ops: Annotated[int, Ge(1)] = 2, magnitude: Annotated[float, Ge(0), Le(30)] = 9.0
    ) -> None:
        self.num_ops, self.strength = num_ops, magnitude / MAX_MAGNITUDE

    def __call__(self, x: Tensor) -> Tensor:
        changes = colour_operations(self.strength)
        names = ["identity", *GEOMETRIC, *COLOURS]
        for _ in range(self.num_ops):
            drawn = torch.randint(len(names), (len(x),))  # on the CPU: every device draws alike
            signs = torch.randint(2, (len(x),)) * 2.0 - 1
            x = self._geometric(x, [names[number] for number in drawn.tolist()], signs)
            for number, name in enumerate(names):
                if name in changes and len(chosen := (drawn == number).nonzero().flatten()):
                    index = chosen.to(x.device, non_blocking=True)
                    sign = signs[chosen].to(x.device, non_blocking=True)
                    x.index_copy_(0, index, changes[name](x.index_select(0, index), sign).clamp_(0, 1))
        return x

    def _geometric(self, x: Tensor, names: list[str], signs: Tensor) -> Tensor:
        """A new tensor in which the images with a geometric operation are transformed."""
        moved = [number for number, name in enumerate(names) if name in GEOMETRIC]
        x = x.clone()
        if moved:
            height, width = x.shape[-2:]
            matrices = [matrix(names[i], self.strength * float(signs[i]), height, width) for i in moved]
            theta = torch.tensor(matrices).to(x.device, x.dtype, non_blocking=True)
            index = torch.tensor(moved).to(x.device, non_blocking=True)
            grid = F.affine_grid(theta, [len(moved), *x.shape[1:]], align_corners=False)
            x.index_copy_(0, index, F.grid_sample(x.index_select(0, index), grid, align_corners=False))
        return x


def matrix(name: str, strength: float, height: int, width: int) -> list[list[float]]:
    """The affine matrix [2, 3] from output to input places, in units of half an image; strength -1 to 1."""
    angle, shear, shift = math.radians(30 * strength), 0.3 * strength, 2 * 150 / 331 * strength
    ratio = height / width  # the image is a square in these units
    cos, sin = math.cos(angle), math.sin(angle)
    return {
        "rotate": [[cos, sin * ratio, 0.0], [-sin / ratio, cos, 0.0]],
        "shear_x": [[1.0, shear * ratio, 0.0], [0.0, 1.0, 0.0]],
        "shear_y": [[1.0, 0.0, 0.0], [shear / ratio, 1.0, 0.0]],
        "translate_x": [[1.0, 0.0, shift], [0.0, 1.0, 0.0]],
        "translate_y": [[1.0, 0.0, 0.0], [0.0, 1.0, shift]],
    }[name]


def colour_operations(strength: float) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """By name: images [N, C, H, W] and their signs [N] -> changed images; kornia's functions."""
    from kornia import enhance

    def factor(sign: Tensor) -> Tensor:
        return 1 + 0.9 * strength * sign

    bits, threshold = 8 - round(4 * strength), 1 - strength
    return {
        "brightness": lambda x, sign: enhance.adjust_brightness_accumulative(x, factor(sign)),
        "contrast": lambda x, sign: enhance.adjust_contrast_with_mean_subtraction(x, factor(sign)),
        "saturation": lambda x, sign: enhance.adjust_saturation_with_gray_subtraction(x, factor(sign)),
        "sharpness": lambda x, sign: enhance.sharpness(x, factor(sign)),
        "posterize": lambda x, sign: enhance.posterize(x, bits),
        "solarize": lambda x, sign: torch.where(x >= threshold, 1 - x, x),
        "autocontrast": lambda x, sign: enhance.normalize_min_max(x),
        "equalize": lambda x, sign: enhance.equalize(x),
    }
