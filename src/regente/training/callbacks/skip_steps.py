"""Steps with NaN that are skipped."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class SkipSteps(Callback):
    """Skips the optimizer step where the loss or a gradient is not finite; each step waits for the device."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def step(epoch: int, batch_idx: int, optimizer: Any, closure: Callable[[], Any]) -> None:
            loss = closure()
            if getattr(trainer.precision_plugin, "scaler", None) is not None:
                # it skips such steps itself, and adapts its scale to them
                optimizer.step(closure=lambda: loss)
                return
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            wrong = any(not torch.isfinite(each).all() for each in [torch.as_tensor(loss), *gradients])
            # the ranks have the same gradients, and each its own loss
            if trainer.strategy.reduce_boolean_decision(wrong, all=False):
                optimizer.zero_grad()
            else:
                optimizer.step(closure=lambda: loss)

        pl_module.optimizer_step = step  # type: ignore[method-assign,assignment]
