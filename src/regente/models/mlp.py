"""A multilayer perceptron."""

from itertools import pairwise
from math import prod
from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor, nn


class MLP(nn.Module):
    """Dense layers with ReLU and dropout between them; initial weights of torch.

    x [B, ...] float, flattened -> outputs [B, num_classes]: logits, or with num_classes 1 the value of a regression.
    """

    def __init__(
        self,
        input_shape: list[Annotated[int, Ge(1)]],
        num_classes: Annotated[int, Ge(1)],
        widths: list[Annotated[int, Ge(1)]],
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for wide, narrow in pairwise([prod(input_shape), *widths]):
            layers += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(dropout)]
        last = widths[-1] if widths else prod(input_shape)
        self.layers = nn.Sequential(*layers, nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]
