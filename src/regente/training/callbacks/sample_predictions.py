"""The prediction for each sample."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.data.protocols import SupportsClassNames

KEYS = {"label", "prediction", "loss"}  # what a step returns, each [n]
WORST = 16  # mistakes whose inputs are kept


class SamplePredictions(Callback):
    """Writes `test.npz` in the job directory: label, prediction and loss of each test sample, in the order of the
    split, for classes also the confidence, and the numbers and inputs of the mistakes with the largest loss. With several
    ranks: those of rank 0. `val.npz` has the same for validation, if `splits` has it.
    """

    def __init__(self, folder: Path, splits: tuple[str, ...] = ("test",)) -> None:
        self.folder, self.splits = folder, splits
        self.rows: list[dict[str, torch.Tensor]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if "val" in self.splits:
            self._add(trainer, outputs)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._add(trainer, outputs)

    def _add(self, trainer: Trainer, outputs: Any) -> None:
        # a user's task may return what it likes
        if isinstance(outputs, dict) and trainer.is_global_zero and outputs.keys() >= KEYS:
            found = {key: outputs[key] for key in (*KEYS, "confidence") if key in outputs}
            if _fit(found, self.rows[0] if self.rows else found):
                self.rows.append(found)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: Trainer, name: str) -> None:
        if not self.rows:
            return
        found = {key: torch.cat([row[key] for row in self.rows]).cpu().numpy() for key in self.rows[0]}
        if len(found["label"]) == 0:
            return
        order = np.argsort(-found["loss"], kind="stable")
        differs = (found["label"] != found["prediction"]).reshape(len(order), -1).any(1)
        wrong = order[differs[order]][:WORST]
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        split = getattr(datamodule, "splits", {}).get(name)
        inputs = np.zeros((0,))
        if split is not None and trainer.world_size == 1 and len(wrong):
            inputs = _inputs(split, torch.from_numpy(wrong))
        names = np.array(
            (datamodule.class_names if isinstance(datamodule, SupportsClassNames) else None) or []
        )
        arrays: dict[str, Any] = {**found, "worst": wrong, "inputs": inputs, "names": names}
        np.savez_compressed(self.folder / f"{name}.npz", **arrays)


def _fit(found: dict[str, Any], first: dict[str, Any]) -> bool:
    """Whether these are answers in one order, of the form of the first ones."""
    if not all(isinstance(each, torch.Tensor) and each.ndim for each in found.values()):
        return False
    lengths, shapes = {len(each) for each in found.values()}, {key: found[key].shape[1:] for key in found}
    one_each = not shapes["loss"] and not shapes.get("confidence") and shapes["label"] == shapes["prediction"]
    return len(lengths) == 1 and one_each and shapes == {key: first[key].shape[1:] for key in first}


def _inputs(split: Any, answers: torch.Tensor) -> np.ndarray:
    """The inputs of these answers; a sample has one answer, or one for each of its positions."""
    device = split.tensors[0].device
    each = split.batch(torch.zeros(1, dtype=torch.int64, device=device))[1].numel()
    return np.asarray(split.batch((answers // each).to(device))[0].cpu())
