"""The description of a run: model, data and device."""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.data.protocols import SupportsFittedState, SupportsIdentity
from regente.jobs.hardware import has_bfloat16
from regente.jobs.job import DATA, EXAMPLE, FITTED_STATE, Job, write_json
from regente.models.backbone_with_head import BackboneWithHead
from regente.tracking.journal import Journal
from regente.tracking.provenance import torch_facts

# largest relative error of a product of float32, and the arithmetic that has it
FLOAT32 = [(1e-5, "float32"), (1e-3, "tfloat32"), (float("inf"), "bfloat16")]


class RunDescription(Callback):
    """Writes the size of the model, the digest of the data and what torch reports about the machine into the journal.

    And, in the job directory: the fitted state of the data module, and two samples of the first batch, the input
    example of the logged model.
    """

    def __init__(self, job: Job, journal: Journal, redact: Callable[[str], str]) -> None:
        self.job, self.journal, self.redact = job, journal, redact

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.ckpt_path:  # written in an earlier attempt
            return
        sizes = [(p.numel(), p.numel() * p.element_size(), p.requires_grad) for p in pl_module.parameters()]
        # as tags: among the params they would differ wherever a width is swept
        tags = {
            "parameters": sum(number for number, _, _ in sizes),
            "trainable": sum(number for number, _, wanted in sizes if wanted),
            "megabytes": round(sum(size for _, size, _ in sizes) / 1e6, 3),
            "device": trainer.strategy.root_device.type,
            "ranks": trainer.world_size,
        }
        tags |= arithmetic(trainer, pl_module)
        self.journal.write("tags", values={f"regente.{key}": str(value) for key, value in tags.items()})
        (self.job.path / "model.txt").write_text(self.redact(str(pl_module)) + "\n", encoding="utf-8")
        self.journal.artifact(self.job.path / "model.txt", "model")
        write_json(self.job.path / "torch.json", torch_facts())
        self.journal.artifact(self.job.path / "torch.json", "environment")
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(datamodule, SupportsIdentity):
            identity = datamodule.identity()
            write_json(self.job.path / DATA, identity)
            self.journal.artifact(self.job.path / DATA, "environment")
            self.journal.write("dataset", **identity)
        if isinstance(datamodule, SupportsFittedState):
            write_json(self.job.path / FITTED_STATE, datamodule.fitted_state())
            self.journal.artifact(self.job.path / FITTED_STATE, "model")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            model = getattr(pl_module, "model", None)
            x = input_of(batch, pl_module)
            # without a backbone the batch holds its stored features
            if isinstance(model, BackboneWithHead) and model.backbone is None:
                x = data.model_inputs("train", torch.arange(2))
            if isinstance(x, torch.Tensor) and x.ndim:
                keep_example(self.job.path / EXAMPLE, x)


def input_of(batch: Any, module: LightningModule) -> Any:
    """What the model takes of a batch, as far as its form tells: its first tensor, or that named as the argument of `forward`."""
    if isinstance(batch, Mapping):
        return batch.get(next(iter(signature(module.forward).parameters), ""))
    return batch[0] if isinstance(batch, list | tuple) and batch else batch


def arithmetic(trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:
    """What the device really computes with: the dtype of the weights and of a product of two matrices.

    The error of a float32 product against float64 shows the arithmetic: TF32 and bfloat16 keep 10 and 7 bits of a factor.
    """
    weights, device = pl_module.dtype, trainer.strategy.root_device
    assert isinstance(weights, torch.dtype)
    key = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=key, dtype=torch.float64) for _ in range(2))
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        product = a.to(device, weights) @ b.to(device, weights)
    done = name_of(product.dtype)
    if product.dtype == torch.float32:
        exact = a.float().double() @ b.float().double()
        error = float((product.cpu().double() - exact).norm() / exact.norm())
        done = next(name for bound, name in FLOAT32 if error < bound)
    if device.type == "cpu" and done == "bfloat16" and not has_bfloat16():
        done += " (emulated)"
    return {"precision": str(trainer.precision), "weights": name_of(weights), "matmul": done}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def keep_example(file: Path, x: torch.Tensor) -> None:
    """Write two samples as the model gets them, in its shape and dtype; numpy has no half of bfloat16."""
    two = x[:2] if len(x) > 1 else torch.cat([x, x])
    np.save(file, (two.float() if two.is_floating_point() else two).cpu().numpy())
