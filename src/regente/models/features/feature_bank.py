"""What a user says of the features that are kept."""

from typing import Annotated, Literal

from annotated_types import Ge


class FeatureBank:
    """Features of a frozen backbone are computed once and stored.

    `precision`: auto is that of the trainer, whose results stay the same to the bit; bf16 is faster where the CPU or
    GPU multiplies it natively, and takes half the room. `views`: how many augmented views of each training image are
    stored, epoch e taking view e modulo `views`; null: none, and with augmentation nothing is stored.
    """

    def __init__(
        self, precision: Literal["auto", "bf16", 32] = "auto", views: Annotated[int, Ge(1)] | None = None
    ) -> None:
        self.precision, self.views = precision, views
