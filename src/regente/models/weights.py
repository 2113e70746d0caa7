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
from regente.models.protocols import BuildsBackbone


def load_model(job: Job, checkpoint: Path, *, own: bool = False) -> nn.Module:
    """The model of a job on the CPU, in eval mode; `own`: the caller is the job itself, whose config is trusted.

    Raises:
        ConfigError: when the recorded config names code that is not trusted here.
        CheckpointError: when the file is missing, damaged, or of another model.
    """
    state = load(checkpoint).get("state_dict")
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{checkpoint}: no state_dict in it, so it is no checkpoint of a run; name another file"
        )
    project = job.project if own else str(Path.cwd())
    if project not in sys.path:
        sys.path.append(project)  # the user's own models
    config = resolve(job.config) if own else read_config(job, Path.cwd(), ["model"])
    settings = dict(config["model"])
    settings.pop("compile", None)  # a setting of Regente, for training
    model: nn.Module = instantiate(settings, _convert_="all")
    weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: the weights of another model ({reason})") from error
    for module in model.modules():
        if isinstance(module, BuildsBackbone):
            module.build_backbone()
    return model.eval()
