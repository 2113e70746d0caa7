"""A pretrained network of images with a new head."""

from typing import Annotated

import torch
from annotated_types import Ge, Interval, Len
from torch import Tensor

from regente.errors import ConfigError, Problem
from regente.models.backbone_with_head import BackboneWithHead
from regente.models.backbones.load_backbone import open_backbone
from regente.models.feature_bank import FeatureBank

Size = Annotated[int, Ge(1)]


class Transfer(BackboneWithHead):
    """A pretrained backbone and a head of dense layers: x [B, C, H, W] float -> logits [B, num_classes].

    `backbone` is the name of a torchvision network, timm:NAME or run:RUN. `weights` are DEFAULT, the name of another
    published set, a file (.pth, .safetensors), or null for random weights drawn from `seed`. x is normalised by
    `mean` and `std` of the data and is brought to those of the weights; one channel is repeated to three.
    `hidden`: widths of dense layers with ReLU before the last; `dropout` before the last. See BackboneWithHead.
    """

    def __init__(
        self,
        backbone: str,
        input_shape: Annotated[list[Size], Len(3, 3)],
        num_classes: Annotated[int, Ge(2)],
        weights: str | None = "DEFAULT",
        hidden: list[Size] | None = None,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        frozen: bool = True,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        feature_bank: FeatureBank | None = None,
    ) -> None:
        origin = open_backbone(backbone, weights, input_shape, seed)
        channels = len(origin.preprocessing.mean) or 3
        if input_shape[0] not in (1, channels):
            what = f"images of {input_shape[0]} channels; the network takes {channels}"
            raise ConfigError([Problem(f"model.backbone={backbone}", what)])
        shape = [channels, *input_shape[1:]]
        super().__init__(origin, shape, num_classes, hidden, dropout, frozen, feature_bank)
        self.channels = channels
        self.affine: tuple[Tensor, Tensor] | None = None  # scale and shift [C, 1, 1] of images
        self._match_preprocessing(input_shape[-1], mean, std)

    def _match_preprocessing(self, size: int, mean: list[float] | None, std: list[float] | None) -> None:
        wanted = self.origin.preprocessing
        if wanted.size and wanted.size != size:
            self.notes.append(
                f"the weights were trained on images of {wanted.size} pixels, these have {size}; "
                f"data.resolution={wanted.size} would match"
            )
        if not wanted.mean:
            return
        if not (mean and std):
            self.notes.append(
                "images keep the mean and standard deviation that the data measures; declared ones, data.mean and "
                "data.std, are brought to those of the weights"
            )
        elif (wanted.mean, wanted.std) != (list(mean), list(std)):
            m, s, own_mean, own_std = (torch.tensor(v) for v in (wanted.mean, wanted.std, mean, std))
            # ((x * own_std + own_mean) - m) / s
            self.affine = ((own_std / s).view(-1, 1, 1), ((own_mean - m) / s).view(-1, 1, 1))
            self.notes.append("images are brought to the mean and standard deviation of the weights")

    def prepare(self, x: Tensor) -> Tensor:
        if self.affine is not None:
            scale, shift = (each.to(x.device, x.dtype) for each in self.affine)
            return x * scale + shift  # one channel becomes three by broadcasting
        return x.expand(-1, self.channels, -1, -1)
