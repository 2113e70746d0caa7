"""A recurrent network for time series."""

from typing import Annotated

from annotated_types import Ge, Len
from torch import Tensor, nn


class GRU(nn.Module):
    """Gated recurrent units (Cho et al., 2014) and a dense layer on the last state; initial weights of torch.

    x [B, T, D] float -> outputs [B, num_classes]: logits, or with num_classes 1 the value of a regression.
    """

    def __init__(
        self,
        input_shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 2)],
        num_classes: Annotated[int, Ge(1)],
        hidden: Annotated[int, Ge(1)],
        num_layers: Annotated[int, Ge(1)] = 1,
    ) -> None:
        super().__init__()
        self.recurrent = nn.GRU(input_shape[1], hidden, num_layers, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x)
        return self.head(states[:, -1])  # type: ignore[no-any-return]
