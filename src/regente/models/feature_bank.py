"""The settings of stored features."""

from typing import Annotated, Literal

from annotated_types import Ge


class FeatureBank:
    """The features of a frozen backbone are computed once and stored.

    `precision`: auto is the precision of the trainer, and the results stay equal to the bit; bf16 needs half the space
    and is faster where the hardware multiplies it natively. `views`: how many augmented views of each training image
    are stored, epoch e takes view e modulo `views`; with null nothing is stored where images are augmented.
    """

    def __init__(
        self, precision: Literal["auto", "bf16", 32] = "auto", views: Annotated[int, Ge(1)] | None = None
    ) -> None:
        self.precision, self.views = precision, views
