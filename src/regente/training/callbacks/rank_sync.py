"""What several ranks exchange besides gradients."""

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.training.lightning_internals import disable_sigterm_broadcast


class RankSync(Callback):
    """Lets a training step exchange gradients only.

    DDP would broadcast the buffers of rank 0 before each forward pass. Here they are broadcast before each validation,
    which gives the same: until then rank 0 uses its own.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        disable_sigterm_broadcast(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for buffer in pl_module.buffers():
            # counts and masks are the same on all ranks, and gloo cannot send bool
            if buffer.is_floating_point():
                torch.distributed.broadcast(buffer, 0)
