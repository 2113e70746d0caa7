"""What several ranks say to each other besides gradients."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class RankSync(Callback):
    """Leaves only the gradients to travel with each step.

    Buffers are those of rank 0 from each validation on, which comes to what DDP does with a broadcast before each
    forward pass: rank 0's own are never another's. And Lightning (2.6, its issue 21487) has rank 0 tell the others
    before each batch whether it got a SIGTERM, which StopOnSignal does without.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop: Any = trainer.fit_loop.epoch_loop
        if hasattr(loop, "_broadcast_sigterm_tensor"):
            loop._broadcast_sigterm_tensor = lambda: None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for buffer in pl_module.buffers():
            if (
                buffer.is_floating_point()
            ):  # counts and masks are the same on all ranks, and gloo sends no bool
                torch.distributed.broadcast(buffer, 0)
