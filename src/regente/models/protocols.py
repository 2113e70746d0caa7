"""What a model may offer beyond nn.Module."""

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class BuildsBackbone(Protocol):
    """A model whose frozen backbone is built when it is first needed."""

    def build_backbone(self) -> nn.Module:
        """The backbone, which is built now unless it is there."""
