"""The backbone of a name in the config."""

from collections.abc import Sequence

from regente.errors import ConfigError, Problem
from regente.models.backbones.backbone import Backbone


def open_backbone(name: str, weights: str | None, shape: Sequence[int], seed: int) -> Backbone:
    """The backbone timm:NAME, run:RUN, or a network of torchvision, for inputs of shape [C, H, W].

    Raises:
        ConfigError: when there is no such network or set of weights.
        MachineError: when timm is not installed.
    """
    if name.startswith("timm:"):
        from regente.models.backbones.timm_backbone import TimmBackbone

        return TimmBackbone(name, weights, shape, seed)
    if name.startswith("run:"):
        from regente.models.backbones.run_backbone import RunBackbone

        if weights not in (None, "DEFAULT"):
            what = f"{name} has weights of its own; DEFAULT would be right"
            raise ConfigError([Problem(f"model.weights={weights}", what)])
        return RunBackbone(name)
    from regente.models.backbones.torchvision_backbone import TorchvisionBackbone

    return TorchvisionBackbone(name, weights, shape, seed)
