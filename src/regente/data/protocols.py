"""What a LightningDataModule may offer beyond Lightning's own methods.

Each protocol is optional. A capability that needs one says in one line which one is missing. `InMemory` offers the
first six; a data module of a user's own offers one by having its attributes and methods.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regente.data.core.sources import Source


@runtime_checkable
class SupportsIdentity(Protocol):
    """Names the data that a run was trained on: recorded with the run, compared by `regente rerun`."""

    def identity(self) -> dict[str, Any]:
        """`name`, `source` (a path or package), `digest` of all samples, and `splits`: the number of samples of each."""


@runtime_checkable
class SupportsFittedState(Protocol):
    """Keeps what it computed from the training samples and what the weights depend on: a scale, a vocabulary."""

    def fitted_state(self) -> dict[str, Any]:
        """The state as values that JSON can hold; called after `setup`."""

    def load_fitted_state(self, state: Mapping[str, Any]) -> None:
        """Use the state of an earlier run; called before `setup`, or without any samples."""


@runtime_checkable
class SupportsFiles(Protocol):
    """Reads samples from files that belong to no split: `regente predict`."""

    suffixes: tuple[str, ...]  # of the files, in lower case

    def samples_of(self, file: Path) -> "list[tuple[str, Tensor]]":
        """Name and raw sample, without a batch dimension, of each sample in a file.

        Raises:
            DataError: when the file holds no sample that fits.
        """


@runtime_checkable
class SupportsRawSamples(Protocol):
    """Says what lies between raw samples and the model: `regente predict` on files, `serve` and `export`."""

    def preprocessing(self) -> "nn.Module":
        """Raw samples x [B, ...] -> inputs of the model; deterministic."""

    def postprocessing(self) -> "nn.Module":
        """Outputs of the model -> answers: probabilities [B, K], or values in the units of the data."""


@runtime_checkable
class SupportsRawSplits(SupportsRawSamples, Protocol):
    """Gives raw samples of its splits, with which `serve` and `export` compare a file: x as files hold it."""

    splits: "Mapping[str, Source]"  # train, val and test; filled by `setup`

    def raw(self, split: str, index: "Tensor") -> "Tensor":
        """Samples of a split, index [B] int64, as a file holds them, x [B, ...]."""


@runtime_checkable
class SupportsFeatures(SupportsIdentity, SupportsFittedState, Protocol):
    """Gives stored features of a frozen backbone in place of its samples."""

    batch_size: int
    seed: int  # of the order of the samples and of the augmentation
    augment: Any  # callable that changes training samples, or None
    splits: "Mapping[str, Source]"  # train, val and test

    @property
    def source(self) -> str:
        """Where the data comes from, for a human reader."""

    def model_inputs(self, split: str, index: "Tensor") -> "Tensor":
        """Samples of a split, index [B] int64, as the model gets them in evaluation, x [B, ...]."""

    def augmented_inputs(self, split: str, index: "Tensor") -> "Tensor":
        """Augmented samples as a function of `seed` and index [B] int64; number n of N samples is view n // N."""

    def use_features(self, features: "Mapping[str, Source] | None") -> None:
        """Make batches from these features, one for each sample of each split; None: from the samples."""


@runtime_checkable
class SupportsUnscale(Protocol):
    """Brings targets and forecasts into the units of the data, for the error that `Regressor` logs."""

    def unscale(self, y: "Tensor") -> "Tensor":
        """y in the units of the model -> y in the units of the data, the same shape."""


@runtime_checkable
class SupportsNaiveForecast(Protocol):
    """Knows the error of the naive forecast, which repeats the last value; `Regressor` logs it beside the test error."""

    def naive_mae(self, split: str) -> float:
        """The mean absolute error of the naive forecast on a split, in the units of the data."""


@runtime_checkable
class SupportsNotes(Protocol):
    """Has lines for the user, printed before the training: files that were skipped, splits that were drawn."""

    notes: list[str]


@runtime_checkable
class SupportsClassNames(Protocol):
    """Names its classes, in the order of the labels."""

    class_names: list[str] | None


@runtime_checkable
class SupportsText(Protocol):
    """Turns text into word ids and back: prompts of `regente predict`, texts that a language model continues."""

    vocabulary: list[str]  # the word of each id
    splits: "Mapping[str, Source]"  # train, val and test
    seed: int

    def word_ids(self, words: list[str]) -> "Tensor":
        """The ids [T] int64 of the last words that fit into the window."""

    def detokenise(self, ids: list[int]) -> str:
        """The text of these ids."""
