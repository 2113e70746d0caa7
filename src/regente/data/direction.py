"""The direction of a series."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from regente.data.series import Series


class Direction(Series):
    """Whether a series rises: windows as in `Series`, y [B] int64.

    y is 1 where the target is higher `horizon` rows later, else 0: also where it is equal.
    """

    def __init__(self, num_classes: Literal[2], class_names: list[str], **common: Any) -> None:
        super().__init__(**common)
        if len(class_names) != num_classes:
            raise ValueError(
                f"class_names are {class_names}; two names, for not higher and higher, would be right"
            )
        self.num_classes, self.class_names = num_classes, class_names

    def postprocessing(self) -> nn.Module:
        return nn.Softmax(dim=-1)

    def labels(self, values: np.ndarray, scaled: np.ndarray) -> Tensor:
        risen = np.zeros(
            len(values), dtype=np.int64
        )  # no window has one of the first `horizon` rows for its label
        risen[self.horizon :] = values[self.horizon :] > values[: -self.horizon]
        return torch.from_numpy(risen)
