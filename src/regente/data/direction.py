"""Direction of a series."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from regente.data.series import Series


class Direction(Series):
    """Whether a series rises: windows as in `Series`, y [B] 1 where the target is higher `horizon` rows later.

    0 is for lower and for equal alike.
    """

    def __init__(self, num_classes: Literal[2], class_names: list[str], **common: Any) -> None:
        super().__init__(**common)
        if len(class_names) != num_classes:
            raise ValueError(f"class_names needs two names, for not higher and for higher, not {class_names}")
        self.num_classes, self.class_names = num_classes, class_names

    def postprocessing(self) -> nn.Module:
        return nn.Softmax(dim=-1)

    def label(self, values: np.ndarray, scaled: np.ndarray) -> Tensor:
        risen = np.zeros(len(values), dtype=np.int64)  # the first `horizon` rows are the label of no window
        risen[self.horizon :] = values[self.horizon :] > values[: -self.horizon]
        return torch.from_numpy(risen)
