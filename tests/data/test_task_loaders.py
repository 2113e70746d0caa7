"""A task that makes its data loaders itself."""

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from regente.config.check import check
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.task_loaders import TaskLoaders
from regente.training.complete import complete


class Lit(LightningModule):
    """Counts the batches of each split."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen: list[str] = []

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        self.seen.append("train")
        loss: Tensor = self.net(batch).sum()
        return loss

    def validation_step(self, batch: Tensor, number: int) -> None:
        self.seen.append("val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.zeros(4, 1), batch_size=2)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(torch.zeros(2, 1), batch_size=2)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.15, 2026-11
@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # a tip of Lightning's
def test_the_loaders_of_a_task_are_used_for_the_splits_that_it_has() -> None:
    task, data = Lit(), TaskLoaders()
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    off: dict[str, Any] = dict.fromkeys(quiet, False)
    trainer = Trainer(max_epochs=1, accelerator="cpu", num_sanity_val_steps=0, **off)
    trainer.fit(task, datamodule=data)
    assert task.seen == ["train", "train", "val"]
    assert data.test_dataloader() == data.predict_dataloader() == []


def test_a_run_may_have_no_data_module() -> None:
    words = ["data=none", "model=none", f"task._target_={__name__}.Lit", "monitor.metric=val/loss"]
    made = compose("digits_mlp", words)
    complete(made.node)
    assert check(resolve(made.node)) == []
