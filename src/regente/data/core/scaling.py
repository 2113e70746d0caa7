"""Scaling of inputs and outputs, as modules that are exported with the model."""

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """x [B, C, ...] uint8, or float in units of `white` -> (x / white - mean) / std, float32, for each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: list[float], std: list[float], dimensions: int, white: int) -> None:
        super().__init__()
        shape = (-1, *[1] * dimensions)
        middle, spread = torch.tensor(mean).view(shape), torch.tensor(std).view(shape)
        self.register_buffer("scale", 1 / (white * spread))
        self.register_buffer("shift", middle / spread)

    def forward(self, x: Tensor) -> Tensor:
        # a float tensor of the caller is not changed in place
        x = x.mul(self.scale) if x.is_floating_point() else x.float().mul_(self.scale)
        return x.sub_(self.shift)


class Standardise(nn.Module):
    """x [B, T, D] in the units of the file -> standard deviations from the mean of each column."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Standard deviations -> the units of the file."""
        return x * self.std + self.mean


class Unscale(nn.Module):
    """y in standard deviations from the mean -> y in the units of the file."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, y: Tensor) -> Tensor:
        return y * self.std + self.mean
