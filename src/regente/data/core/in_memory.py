"""Data modules whose samples are in memory or memory-mapped."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from regente.data.core.batches import Batches, GroupedBatches
from regente.data.core.device_placement import DevicePlacement, OnDevice
from regente.data.core.file_inputs import Inputs
from regente.data.core.sources import Source, Split
from regente.errors import DataError


class InMemory(LightningDataModule):
    """Splits of samples by number. A subclass reads them in `read` and checks the declared facts in `verify`."""

    suffixes: ClassVar[tuple[str, ...]] = ()  # of the files that `samples_of` reads

    def __init__(
        self, batch_size: Annotated[int, Ge(1)], seed: Annotated[int, Ge(0)] = 0, on_device: OnDevice = "auto"
    ) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.placement = DevicePlacement(on_device)
        self.augment: Callable[[Tensor], Tensor] | None = None
        self.notes: list[str] = []  # lines that the user should read
        self.splits: dict[str, Any] = {}  # each is a Source, a subclass knows which
        self.features: Mapping[str, Source] | None = None  # batches come from these instead of the splits

    @abstractmethod
    def read(self) -> Mapping[str, Source | tuple[Tensor, Tensor]]:
        """The splits `train`, `val` and `test`; they share no sample and do not depend on the seed of the run.

        Each is a Source, or its tensors: x [N, ...] and y [N] or [N, ...].
        """

    def verify(self, splits: Mapping[str, Any]) -> None:
        """Raise ConfigError or DataError where the splits are not what the config declares."""

    def setup(self, stage: str) -> None:
        """Read the splits once and verify them."""
        if not self.splits:
            splits = {
                name: Split(*each) if isinstance(each, tuple) else each for name, each in self.read().items()
            }
            self.verify(splits)
            self.splits = splits

    # regente.data.protocols says what the following methods are for

    @property
    def source(self) -> str:
        """Where the data comes from: a path, or the name of a package."""
        return type(self).__module__

    def identity(self) -> dict[str, Any]:
        digest = blake2b(digest_size=16)
        for _, split in sorted(self.splits.items()):
            for tensor in split.tensors:
                digest.update(tensor.contiguous().cpu().numpy().data)
        return self.identity_with(digest.hexdigest())

    def identity_with(self, digest: str) -> dict[str, Any]:
        """The identity, from a digest of all samples."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        return {"name": type(self).__name__, "source": self.source, "digest": digest, "splits": sizes}

    def fitted_state(self) -> dict[str, Any]:
        return {}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        pass

    def samples_of(self, file: Path) -> Inputs:
        raise DataError(f"{type(self).__name__} reads no single files")

    def raw(self, split: str, index: Tensor) -> Tensor:
        """Samples of a split as a file would hold them, x [B, ...]."""
        x: Tensor = self.splits[split].batch(index)[0]
        return x

    def preprocessing(self) -> nn.Module:
        return nn.Identity()

    def postprocessing(self) -> nn.Module:
        return nn.Softmax(dim=-1)

    def model_inputs(self, split: str, index: Tensor) -> Tensor:
        x: Tensor = self.splits[split].batch(index)[0]
        return x

    def augmented_inputs(self, split: str, index: Tensor) -> Tensor:
        return self.model_inputs(split, index % len(self.splits[split]))

    def use_features(self, features: Mapping[str, Source] | None) -> None:
        if features is not self.features:
            self.features, self.placement = features, DevicePlacement(self.placement.on_device)

    def train_dataloader(self) -> Batches:
        """Shuffled batches."""
        return self._batches("train", self.seed)

    def val_dataloader(self) -> Batches:
        """Batches in file order."""
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        """Batches in file order."""
        return self._batches("test")

    def _batches(self, name: str, seed: int | None = None) -> Batches:
        trainer: Any = self.trainer
        if trainer is None:
            return Batches((self.features or self.splits)[name], self.batch_size, seed=seed)
        task = trainer.lightning_module
        group = task.batches_per_call if seed is not None and isinstance(task, GroupedBatches) else 1
        if overfit := bool(trainer.overfit_batches):  # the same few training batches for every split
            name, seed = "train", self.seed
        device = trainer.strategy.root_device
        source = self.placement.place(self.features or self.splits, name, device)
        return Batches(
            source,
            self.batch_size,
            seed=seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            group=group,
            fixed=overfit,
            pin=device.type == "cuda" and source.tensors[0].device.type == "cpu",
        )
