"""What several ranks exchange besides gradients: less than by default."""

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.training.lightning_internals import disable_sigterm_broadcast


class RankSync(Callback):
    """Removes two broadcasts from each training step: Lightning's about SIGTERM, and DDP's of the buffers.

    StopOnSignal takes the place of the first, with fewer exchanges. DDP would broadcast the buffers of rank 0 before
    each forward pass; ranks/strategies.py switches that off. Here they are broadcast before each validation, with the
    same results: only the buffers of rank 0 count, and rank 0 uses its own until then.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        disable_sigterm_broadcast(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for buffer in pl_module.buffers():
            # counts and masks are the same on all ranks, and gloo cannot send bool
            if buffer.is_floating_point():
                torch.distributed.broadcast(buffer, 0)
