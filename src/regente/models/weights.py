"""The model of a job with the weights of a checkpoint."""

import sys
from pathlib import Path

from hydra.utils import instantiate
from torch import nn

from regente.config.interpolation import resolve
from regente.errors import CheckpointError
from regente.jobs.checkpoint_files import load
from regente.jobs.job import Job
from regente.jobs.trust import read_config


def load_model(job: Job, checkpoint: Path, *, own: bool = False) -> nn.Module:
    """The job's model on the CPU, ready to answer; `own`: this is the job itself, which may name anything.

    Raises:
        ConfigError: when the recorded config names what is not to be trusted here.
        CheckpointError: when the file is missing, damaged, or of another model.
    """
    state = load(checkpoint).get("state_dict")
    if not isinstance(state, dict):
        raise CheckpointError(f"{checkpoint}: not a checkpoint of a run, it has no state_dict; name another")
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
