"""A trained network with a new head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval, Len
from torch import Tensor, nn

from regente.errors import ConfigError, Problem
from regente.models.backbones.backbone import Backbone
from regente.models.backbones.open_backbone import open_backbone
from regente.models.features.feature_bank import FeatureBank

Side = Annotated[int, Ge(1)]


class Transfer(nn.Module):
    """A backbone, cut before its classifier, and a head of dense layers: x [B, C, H, W] float -> logits [B, num_classes].

    `backbone` is one of torchvision's networks by name, timm:NAME or run:RUN; `weights` are DEFAULT, another published
    set, a file (.pth, .safetensors) or null for random ones, a function of `seed`. x is normalised by `mean` and `std`,
    the data's, and brought to those of the weights. `hidden`: widths of dense layers with ReLU before the last;
    `dropout` before the last.

    Frozen, the backbone stays as it is to the bit: no gradient, BatchNorm's statistics still, its dropout off; what is
    saved is the head alone, because the backbone is a function of the config. With `frozen` false all is trained.
    """

    backbone: nn.Module | None  # None: not built yet, see `deferred`

    def __init__(
        self,
        backbone: str,
        input_shape: Annotated[list[Side], Len(3, 3)],
        num_classes: Annotated[int, Ge(2)],
        weights: str | None = "DEFAULT",
        hidden: list[Side] | None = None,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        frozen: bool = True,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        feature_bank: FeatureBank | None = None,
    ) -> None:
        origin = open_backbone(backbone, weights, input_shape, seed)
        self._assemble(origin, input_shape, num_classes, hidden, dropout, frozen, feature_bank, mean, std)

    def _assemble(
        self,
        origin: Backbone,
        input_shape: list[Side],
        num_classes: int,
        hidden: list[Side] | None,
        dropout: float,
        frozen: bool,
        feature_bank: FeatureBank | None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        """The head, and the backbone unless it is deferred."""
        super().__init__()
        self.origin = origin
        self.frozen, self.feature_bank, self.shape = frozen, feature_bank, input_shape
        self.altered = not frozen  # whether the backbone is no longer what the config says
        self.notes: list[str] = []  # what a user should know, a line each
        self.takes_features = False  # whether x comes as features [B, D], out of a bank
        self.drop_features: Callable[[], None] | None = None  # makes the data give images instead
        self.group: int | None = None  # frozen, the backbone takes so many images at a time: see `features`
        channels = self._adapt(input_shape, mean, std)
        self.width = self.origin.width([channels, *input_shape[1:]])
        self.register_module("backbone", None)  # the head comes after it
        widths = [self.width, *(hidden or [])]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
        if not _deferred:
            self.complete()
        self.register_state_dict_post_hook(_leave_out_backbone)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_bring_in_backbone)  # type: ignore[no-untyped-call]

    def complete(self) -> None:
        """Build the backbone with the weights that the config says.

        Raises:
            CheckpointError: when they are missing, damaged, or of another network.
        """
        network = self.origin.build().to(memory_format=torch.channels_last)
        self.backbone = network.to(next(self.head.parameters()).device).requires_grad_(not self.frozen)
        self.altered = not self.frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> "Transfer":
        super().train(mode)
        if self.backbone is not None and self.frozen:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        features = x if self.takes_features else self.features(x)
        if not torch.is_autocast_enabled(features.device.type):  # features of a bank may be in bfloat16
            features = features.to(next(self.head.parameters()).dtype)
        return self.head(features)  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, D]. With `group`, in groups of that size, the last one filled up.

        How a matrix product is rounded depends on how many images there are, and not on which: so the features of an
        image are the same to the bit in whatever batch it comes.
        """
        if self.backbone is None:
            self.complete()
        assert self.backbone is not None
        x = self._rescaled(x)
        if self.altered:
            return self.backbone(x).flatten(1)  # type: ignore[no-any-return]
        with torch.no_grad():
            if self.group is None:
                return self.backbone(x).flatten(1)  # type: ignore[no-any-return]
            lacking = -len(x) % self.group
            filled = F.pad(x, [0] * (2 * x.ndim - 1) + [lacking]) if lacking else x
            parts = [self.backbone(part).flatten(1) for part in torch.split(filled, self.group)]
            return torch.cat(parts)[: len(x)]

    def stages(self) -> list[list[nn.Parameter]]:
        """The parameters of the backbone by stage, from the input on."""
        if self.backbone is None:
            self.complete()
        assert self.backbone is not None
        return list(_stages(self.backbone))

    def unfreeze(self, number: int | None) -> list[list[nn.Parameter]]:
        """From now on the last stages of the backbone are trained, all where `number` is None.

        Returns, the last stage first, the parameters of each that were frozen. BatchNorm keeps its statistics, and
        dropout in the backbone stays off.
        """
        found = [[p for p in stage if not p.requires_grad] for stage in self.stages()[::-1][:number]]
        for parameter in (parameter for stage in found for parameter in stage):
            parameter.requires_grad_(True)
        self.leave_features()
        self.altered = True
        return found

    def leave_features(self) -> None:
        """Take images from now on, which the data then gives."""
        if self.drop_features is not None:
            self.drop_features()
        self.drop_features, self.takes_features = None, False

    def _adapt(self, shape: list[int], mean: list[float] | None, std: list[float] | None) -> int:
        """Prepare to bring x to the preprocessing of the weights; how many channels the backbone takes."""
        wanted = self.origin.preprocessing
        channels = len(wanted.mean) or 3
        if shape[0] not in (1, channels):
            what = f"images of {shape[0]} channels; the network takes {channels}"
            raise ConfigError([Problem(f"model.backbone={self.origin.name}", what)])
        self.repeat = channels if shape[0] == 1 and channels > 1 else 1
        self.scale: tuple[Tensor, Tensor] | None = None
        if wanted.size and wanted.size != shape[-1]:
            self.notes.append(
                f"the weights were trained on images of {wanted.size} pixels, these have {shape[-1]}; "
                f"data.resolution={wanted.size} would be theirs"
            )
        if wanted.mean and mean and std and (wanted.mean != list(mean) or wanted.std != list(std)):
            m, s, own_mean, own_std = (torch.tensor(v) for v in (wanted.mean, wanted.std, mean, std))
            # ((x * own_std + own_mean) - m) / s
            self.scale = ((own_std / s).view(-1, 1, 1), ((own_mean - m) / s).view(-1, 1, 1))
            self.notes.append("images brought to the mean and standard deviation of the weights")
        elif wanted.mean and not (mean and std):
            self.notes.append(
                "images stay at the mean and standard deviation that the data measures; data.mean and data.std, where "
                "they are given, are brought to those of the weights"
            )
        return channels

    def _rescaled(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            scale, shift = (each.to(x.device, x.dtype) for each in self.scale)
            return x * scale + shift
        return x.expand(-1, self.repeat, -1, -1) if self.repeat > 1 else x


_deferred: list[bool] = []


@contextmanager
def deferred() -> Iterator[None]:
    """Transfer models that are made within have no backbone until one is needed: stored features may do."""
    _deferred.append(True)
    try:
        yield
    finally:
        _deferred.pop()


def _stages(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Parameters that lie beside the children, then each child's; of a child that holds nearly all, its children's."""
    total = sum(p.numel() for p in network.parameters())
    if own := list(network.parameters(recurse=False)):
        yield own
    for child in network.children():
        size = sum(p.numel() for p in child.parameters())
        if size > 0.9 * total and any(True for _ in child.children()):
            yield from _stages(child)
        elif size:
            yield list(child.parameters())


def _leave_out_backbone(model: nn.Module, state: dict[str, Any], prefix: str, meta: Any) -> None:
    """Of a backbone that is a function of the config, nothing is saved."""
    assert isinstance(model, Transfer)
    if not model.altered:
        for key in [key for key in state if key.startswith(f"{prefix}backbone.")]:
            del state[key]


def _bring_in_backbone(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights that were saved with a backbone need one; those saved without mean that of the config."""
    assert isinstance(model, Transfer)
    saved = any(key.startswith(f"{prefix}backbone.") for key in state)
    if model.backbone is None or (model.altered and not saved):
        if saved or model.backbone is not None:
            altered = model.altered
            model.complete()
            model.altered = altered
        else:
            return
    assert model.backbone is not None
    if saved:
        model.leave_features()  # which were another backbone's
        model.altered = True
    else:
        state |= model.backbone.state_dict(prefix=f"{prefix}backbone.")
