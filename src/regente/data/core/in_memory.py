"""Data that fits in memory, or that is mapped into it."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from regente.data.core.batches import Batches, Source
from regente.data.core.device_placement import DevicePlacement
from regente.data.core.file_inputs import Inputs
from regente.errors import DataError


class InMemory(LightningDataModule):
    """Splits of samples taken by number; a subclass reads them in `read` and checks what it declares in `verify`."""

    def __init__(
        self,
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        on_device: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.placement = DevicePlacement(on_device)
        self.augment: Callable[[Tensor], Tensor] | None = None
        self.group = 1  # training batches that come as one
        self.splits: dict[str, Any] = {}  # a subclass knows which Source its splits are
        self.features: Mapping[str, Source] | None = None  # what batches are cut from in place of the splits

    @abstractmethod
    def read(self) -> Mapping[str, Source]:
        """The splits `train`, `val` and `test`; they share no sample and do not depend on the seed of the run."""

    def verify(self, splits: Mapping[str, Any]) -> None:
        """Raise ConfigError or DataError where the splits are not what the config declares."""

    def fitted_state(self) -> dict[str, Any]:
        """What was learned of the training samples and the weights cannot do without, as JSON has it: a scale, words."""
        return {}

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        """Take what a run has learned instead of learning it anew; before `setup`, or without any samples."""

    suffixes: ClassVar[tuple[str, ...]] = ()  # of the files that `samples_of` reads

    def samples_of(self, file: Path) -> Inputs:
        """The samples that a file of one's own holds, as it holds them: `preprocessing` is still to come.

        Raises:
            DataError: when it holds none that fit.
        """
        raise DataError(f"{type(self).__name__} reads no single files")

    def raw(self, split: str, index: Tensor) -> Tensor:
        """Samples of a split as a file would hold them, x [B, ...]."""
        x: Tensor = self.splits[split].batch(index)[0]
        return x

    def preprocessing(self) -> nn.Module:
        """What lies between a sample as a file holds it, x [B, ...], and the model; nothing is random in it."""
        return nn.Identity()

    def postprocessing(self) -> nn.Module:
        """What makes an answer of what the model gives: probabilities [B, K] of logits."""
        return nn.Softmax(dim=-1)

    def setup(self, stage: str) -> None:
        """Read the splits once and hold what the config declares against them."""
        if not self.splits:
            splits = dict(self.read())
            self.verify(splits)
            self.splits = splits

    def use_features(self, features: Mapping[str, Source] | None) -> None:
        """Cut batches from these from now on, features of the samples; None: from the samples themselves."""
        if features is not self.features:
            self.features, self.placement = features, DevicePlacement(self.placement.choice)

    def model_inputs(self, split: str, index: Tensor) -> Tensor:
        """Samples of a split as the model gets them in evaluation, x [B, ...]."""
        x: Tensor = self.splits[split].batch(index)[0]
        return x

    def augmented_inputs(self, split: str, index: Tensor) -> Tensor:
        """As `model_inputs`: nothing is augmented here."""
        return self.model_inputs(split, index % len(self.splits[split]))

    def identity(self) -> dict[str, Any]:
        """Name, source, digest (of every sample) and sizes, as a tracking store wants them."""
        digest = blake2b(digest_size=16)
        for _, split in sorted(self.splits.items()):
            for tensor in split.tensors:
                digest.update(tensor.contiguous().cpu().numpy().data)
        return {
            "name": type(self).__name__,
            "source": self.source,
            "digest": digest.hexdigest(),
            "splits": {name: len(split) for name, split in self.splits.items()},
        }

    @property
    def source(self) -> str:
        """Where the data comes from: a path, or the name of a package."""
        return type(self).__module__

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
        group = 1 if seed is None else self.group
        if self.trainer is None:
            return Batches((self.features or self.splits)[name], self.batch_size, seed=seed, group=group)
        by_heart = bool(self.trainer.overfit_batches)  # type: ignore[attr-defined] # the same few batches for everything
        if by_heart:
            name, seed = "train", self.seed
        device = self.trainer.strategy.root_device
        source = self.placement.settle(self.features or self.splits, name, device)
        return Batches(
            source,
            self.batch_size,
            seed=seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            group=group,
            fixed=by_heart,
            pin=device.type == "cuda" and source.tensors[0].device.type == "cpu",
        )
