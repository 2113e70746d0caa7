"""The tutorial's convolutional network."""

from typing import Annotated

from annotated_types import Ge, Len
from torch import Tensor, nn


class CNN(nn.Module):
    """Three 3x3 convolutions without padding, two of them pooled, and two dense layers.

    x [B, C, H, W] float -> logits [B, num_classes]. On 1x28x28 with the default widths: 93,322 parameters.
    Initial weights are those of Keras, as in the tutorial: Glorot uniform, zero biases.
    """

    def __init__(
        self,
        input_shape: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3)],
        num_classes: Annotated[int, Ge(2)],
        widths: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3)],
        hidden: Annotated[int, Ge(1)],
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        a, b, c = widths
        self.features = nn.Sequential(
            # ReLU after the pooling: the same values and gradients, computed on a quarter of the values
            nn.Conv2d(channels, a, 3), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(a, b, 3), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(b, c, 3), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        height, width = ((((side - 2) // 2 - 2) // 2) - 2 for side in (height, width))
        if height < 1 or width < 1:
            raise ValueError(
                f"images of {input_shape} are too small for three convolutions; at least 18x18 would be right"
            )
        self.head = nn.Sequential(
            nn.Linear(c * height * width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]
