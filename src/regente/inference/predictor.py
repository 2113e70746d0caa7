"""A finished run as a predictor: from samples as a file holds them to probabilities or values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from torch import Tensor, nn

from regente.data.protocols import SupportsFittedState, SupportsRawSamples
from regente.errors import DataError
from regente.jobs.runs import Run
from regente.jobs.trust import read_config
from regente.models.weights import load_model


class Predictor(nn.Module):
    """Preprocessing, model and postprocessing: x [B, ...] as a file holds it -> y, float32.

    y is probabilities [B, K], or values in the units of the data. Of data that is not `SupportsRawSamples` there is the
    model alone: x as a batch holds it -> what `forward` gives.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: nn.Module | None = None,
        postprocessing: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing, self.model, self.postprocessing = preprocessing, model, postprocessing

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x if self.preprocessing is None else self.preprocessing(x))

    def output(self, x: Tensor) -> Tensor:
        """y for x after the preprocessing."""
        y = self.model(x)
        if not isinstance(y, Tensor):
            what = f"forward gives a {type(y).__name__}; one tensor would be right"
            raise DataError(f"{type(self.model).__name__}: {what}")
        y = y.float()
        if self.postprocessing is None:
            return y
        if y.ndim == 3:  # [B, T, K]: one output per position; the last one is the prediction
            y = y[:, -1]
        return self.postprocessing(y)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LoadedRun:
    """A run with its data module, which holds no samples, and its predictor."""

    run: Run
    config: dict[str, Any]
    data: Any
    predictor: Predictor

    @property
    def class_names(self) -> list[str] | None:
        """The classes in the order of the probabilities; None if the run predicts values, or the data names none."""
        names, number = (getattr(self.data, name, None) for name in ("class_names", "num_classes"))
        if not isinstance(self.predictor.postprocessing, nn.Softmax) or not (names or number):
            return None
        return list(names or map(str, range(int(number or 0))))


def load_run(run: Run) -> LoadedRun:
    """Load a run with its best weights on the CPU; no data is read.

    Raises:
        CheckpointError: when the weights are missing or damaged.
    """
    model = load_model(run.job, run.checkpoint)
    config = read_config(run.job, Path.cwd(), ["data", "trainer"])
    node = {**config["data"], **({"augment": None} if "augment" in config["data"] else {})}
    data = instantiate({"_convert_": "all", **node})
    if run.fitted_state is not None and isinstance(data, SupportsFittedState):
        data.load_fitted_state(run.fitted_state)
    around = (
        (data.preprocessing(), data.postprocessing())
        if isinstance(data, SupportsRawSamples)
        else (None, None)
    )
    return LoadedRun(run, config, data, Predictor(model, *around).eval())
