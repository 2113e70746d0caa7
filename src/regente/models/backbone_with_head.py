"""A pretrained backbone under a new head: what the models of images and of texts share."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regente.models.backbones.backbone import Backbone
from regente.models.feature_bank import FeatureBank


class BackboneWithHead(nn.Module):
    """A backbone, cut before its classifier, and a head of dense layers: x -> logits [B, num_classes].

    x is a batch of inputs of the backbone or, while the backbone is frozen, of its features [B, D] float.

    A frozen backbone stays equal to the bit: no gradient, BatchNorm keeps its statistics, dropout is off. It is built
    when it is first needed. A checkpoint holds it only once it is trained: until then the config determines it.
    """

    backbone: nn.Module | None  # None: not built yet

    def __init__(
        self,
        origin: Backbone,
        input_shape: Sequence[int],
        num_classes: int,
        hidden: Sequence[int] | None,
        dropout: float,
        frozen: bool,
        feature_bank: FeatureBank | None,
    ) -> None:
        super().__init__()
        self.origin, self.frozen, self.feature_bank = origin, frozen, feature_bank
        self.trained = not frozen  # whether the backbone differs from the one of the config
        self.notes: list[str] = []  # lines that the user should read
        # inputs that a frozen backbone takes at a time, see `features`; None: as many as come
        self.backbone_batch_size: int | None = None
        self.width = origin.width(input_shape)
        self.register_module("backbone", None)  # before the head in the order of the parameters
        layers: list[nn.Module] = []
        widths = [self.width, *(hidden or [])]
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
        if not frozen:
            self.build_backbone()
        self.register_state_dict_post_hook(_leave_out_backbone)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_bring_in_backbone)  # type: ignore[no-untyped-call]

    def build_backbone(self) -> nn.Module:
        """The backbone, which is built now with the weights of the config unless it is there.

        Raises:
            CheckpointError: when the weights are missing, damaged, or of another network.
        """
        if self.backbone is None:
            network = self.origin.build().to(memory_format=torch.channels_last)
            weight = next(self.head.parameters())
            self.backbone = network.to(weight.device, weight.dtype).requires_grad_(not self.frozen)
            self.trained = not self.frozen
            self.train(self.training)
        return self.backbone

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.backbone is not None and self.frozen:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        features = x if x.ndim == 2 and x.is_floating_point() else self.features(x)
        if features is x and self.trained:
            raise RuntimeError("stored features belong to the frozen backbone, this one has been trained")
        if not torch.is_autocast_enabled(features.device.type):  # stored features may be in bfloat16
            features = features.to(next(self.head.parameters()).dtype)
        return self.head(features)  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> Tensor:
        """x [B, ...] -> [B, D]; with `backbone_batch_size` in batches of that size, the last one is filled up.

        The rounding of a matrix product depends on the number of its rows. With one batch size the features of an
        input are equal to the bit in every batch.
        """
        backbone, x = self.build_backbone(), self.prepare(x)
        if self.trained:
            return backbone(x).flatten(1)  # type: ignore[no-any-return]
        with torch.no_grad():
            if self.backbone_batch_size is None:
                return backbone(x).flatten(1)  # type: ignore[no-any-return]
            lacking = -len(x) % self.backbone_batch_size
            filled = F.pad(x, [0] * (2 * x.ndim - 1) + [lacking]) if lacking else x
            parts = [backbone(part).flatten(1) for part in torch.split(filled, self.backbone_batch_size)]
            return torch.cat(parts)[: len(x)]

    def prepare(self, x: Tensor) -> Tensor:
        """Inputs as the backbone takes them."""
        return x

    def stages(self) -> list[list[nn.Parameter]]:
        """The parameters of the backbone by stage, from the input on."""
        return list(_stages(self.build_backbone()))

    def unfreeze(self, number: int | None) -> list[list[nn.Parameter]]:
        """Train the last `number` stages of the backbone from now on, all of them where it is None.

        Returns, the last stage first, the parameters of each stage that were frozen. BatchNorm keeps its statistics,
        and dropout in the backbone stays off.
        """
        found = [[p for p in stage if not p.requires_grad] for stage in self.stages()[::-1][:number]]
        for parameter in (parameter for stage in found for parameter in stage):
            parameter.requires_grad_(True)
        self.trained = True
        return found


def _stages(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The network's own parameters, then those of each child; a child that holds nearly all is split in turn."""
    total = sum(p.numel() for p in network.parameters())
    if own := list(network.parameters(recurse=False)):
        yield own
    for child in network.children():
        size = sum(p.numel() for p in child.parameters())
        if size > 0.9 * total and any(True for _ in child.children()):
            yield from _stages(child)
        elif size:
            yield list(child.parameters())


def _leave_out_backbone(model: BackboneWithHead, state: dict[str, Any], prefix: str, meta: Any) -> None:
    """A backbone that the config determines is not saved."""
    if not model.trained:
        for key in [key for key in state if key.startswith(f"{prefix}backbone.")]:
            del state[key]


def _bring_in_backbone(model: BackboneWithHead, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights that were saved without a backbone mean the one of the config."""
    if any(key.startswith(f"{prefix}backbone.") for key in state):
        model.build_backbone()
        model.trained = True
        return
    if model.trained:
        model.backbone = None
        model.build_backbone()
    if model.backbone is not None:
        state |= model.backbone.state_dict(prefix=f"{prefix}backbone.")
