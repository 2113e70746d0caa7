"""The data loaders of a LightningModule that makes them itself."""

from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden


class TaskLoaders(LightningDataModule):
    """Asks the task for its data loaders, for the splits that it has."""

    def _of_task(self, split: str) -> Any:
        assert self.trainer is not None
        name, task = f"{split}_dataloader", self.trainer.lightning_module
        return getattr(task, name)() if is_overridden(name, task, LightningModule) else []

    def train_dataloader(self) -> Any:
        return self._of_task("train")

    def val_dataloader(self) -> Any:
        return self._of_task("val")

    def test_dataloader(self) -> Any:
        return self._of_task("test")

    def predict_dataloader(self) -> Any:
        return self._of_task("predict")
