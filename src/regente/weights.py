"""The model of a job with the weights of a checkpoint."""

import re
import sys
from pathlib import Path
from pickle import UnpicklingError

import torch
from hydra.utils import instantiate
from torch import nn

from regente.compose import resolve
from regente.errors import CheckpointError
from regente.job import Job
from regente.trust import read_config


def load_model(job: Job, checkpoint: Path, *, own: bool = False) -> nn.Module:
    """The job's model on the CPU, ready to answer; `own`: this is the job itself, which may name anything.

    Raises:
        ConfigError: when the recorded config names what is not to be trusted here.
        CheckpointError: when the file is missing, damaged, or of another model.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint}: no such checkpoint; put it back, or name another run"
        ) from error
    except Exception as error:  # torch has no one error for a file that is torn
        if isinstance(error, UnpicklingError) and (code := re.search(r"GLOBAL (\S+)", str(error))):
            raise CheckpointError(
                f"{checkpoint}: refused: it holds code ({code[1]}); a checkpoint is weights and numbers"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{checkpoint}: damaged ({reason}); put a whole one back, or train again"
        ) from error
    project = job.project if own else str(Path.cwd())
    if project not in sys.path:
        sys.path.append(project)  # the user's own models
    config = resolve(job.config) if own else read_config(job, Path.cwd(), ["model"])
    settings = dict(config["model"])
    settings.pop("compile", None)  # build's to carry out
    model: nn.Module = instantiate(settings, _convert_="all")
    weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: the weights of another model ({reason})") from error
    return model.eval()
