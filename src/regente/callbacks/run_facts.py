"""What a run is made of, once everything is built."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.job import EXAMPLE, LEARNED, Job, write_json
from regente.tracking.journal import Journal
from regente.tracking.provenance import torch_facts


class RunFacts(Callback):
    """Writes the size of the model, the digest of the data and what torch says of the machine into the journal.

    And, in the job directory: what the data module learned of the training samples, and two samples of the first batch,
    the example of inputs that is logged with the model.
    """

    def __init__(self, job: Job, journal: Journal) -> None:
        self.job, self.journal = job, journal

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
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
        self.journal.write("tags", values={f"regente.{key}": str(value) for key, value in tags.items()})
        (self.job.path / "model.txt").write_text(str(pl_module) + "\n", encoding="utf-8")
        self.journal.write("artifact", path=str(self.job.path / "model.txt"), to="model")
        write_json(self.job.path / "torch.json", torch_facts())
        self.journal.write("artifact", path=str(self.job.path / "torch.json"), to="environment")
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(datamodule, "identity"):
            self.journal.write("dataset", **datamodule.identity())
        if hasattr(datamodule, "learned"):
            write_json(self.job.path / LEARNED, datamodule.learned())
            self.journal.write("artifact", path=str(self.job.path / LEARNED), to="model")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            keep_example(self.job.path / EXAMPLE, batch[0])


def keep_example(file: Path, x: torch.Tensor) -> None:
    """Write two samples as the model gets them, in its shape and dtype; numpy has no half of bfloat16."""
    two = x[:2] if len(x) > 1 else torch.cat([x, x])
    np.save(file, (two.float() if two.is_floating_point() else two).cpu().numpy())
