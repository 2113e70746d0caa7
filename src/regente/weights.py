"""The model of a job with the weights of a checkpoint."""

import sys
from pathlib import Path

import torch
from hydra.utils import instantiate
from torch import nn

from regente.compose import resolve
from regente.errors import CheckpointError
from regente.job import Job


def load_model(job: Job, checkpoint: Path) -> nn.Module:
    """The job's model on the CPU, ready to answer.

    Raises:
        CheckpointError: when the file is missing, damaged, or of another model.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint}: no such checkpoint; put it back, or name another run"
        ) from error
    except Exception as error:  # torch has no one error for a file that is torn
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{checkpoint}: damaged ({reason}); put a whole one back, or train again"
        ) from error
    if job.project not in sys.path:
        sys.path.append(job.project)  # the user's own models
    model: nn.Module = instantiate(resolve(job.config)["model"], _convert_="all")
    own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: the weights of another model ({reason})") from error
    return model.eval()
