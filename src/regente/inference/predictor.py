"""A run's model with everything around it: from samples as files hold them to answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from regente.errors import ConfigError, Problem
from regente.jobs.runs import Run, shown
from regente.jobs.trust import read_config
from regente.models.weights import load_model


class Answers(nn.Module):
    """x [B, ...] as a file holds it -> probabilities [B, K], or values in the units of the data; float32."""

    def __init__(self, before: nn.Module, model: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.model, self.after = before, model, after

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(self.before(x)).float()
        if y.ndim == 3:  # an answer for each position: the last one looks ahead
            y = y[:, -1]
        return self.after(y)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Opened:
    """A run that can be asked: its data module without any samples, and its model."""

    run: Run
    config: dict[str, Any]
    data: Any
    answers: Answers

    @property
    def names(self) -> list[str] | None:
        """The classes in the order of the probabilities; None where the answers are values."""
        if not isinstance(self.answers.after, nn.Softmax):
            return None
        number = int(self.data.num_classes)
        return list(self.data.class_names or [str(each) for each in range(number)])


def open_run(run: Run) -> Opened:
    """The model of a run with its best weights and its preprocessing, on the CPU; no data is read.

    Raises:
        CheckpointError: when the weights are missing or damaged.
        ConfigError: when the data module has no preprocessing to give.
    """
    model = load_model(run.job, run.checkpoint)
    config = read_config(run.job, Path.cwd(), ["data", "trainer"])
    node = {**config["data"], **({"augment": None} if "augment" in config["data"] else {})}
    data = instantiate(node, _convert_="all")
    if not hasattr(data, "preprocessing"):
        what = f"{type(data).__name__} has no preprocessing(), so that nothing can be asked of the run from files"
        raise ConfigError([Problem(f"run {shown(run.job.path)}", what)])
    if run.fitted_state is not None:
        data.load_fitted_state(run.fitted_state)
    return Opened(run, config, data, Answers(data.preprocessing(), model, data.postprocessing()).eval())


def device_of(config: dict[str, Any]) -> torch.device:
    """The device to answer on: a GPU if there is one, unless the run was told to stay on the CPU."""
    if config["trainer"].get("accelerator") != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
