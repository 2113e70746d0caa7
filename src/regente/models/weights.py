"""The model of a job with the weights of a checkpoint."""

import sys
import warnings
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from regente.config.interpolation import resolve
from regente.config.own_settings import without_own_settings
from regente.config.task_parts import OPTIONAL, PARTS, given_to, has, is_none, is_supervised
from regente.errors import CheckpointError
from regente.jobs.checkpoint_files import load
from regente.jobs.exit_status import loaded_parts, own_parts
from regente.jobs.job import Job
from regente.jobs.trust import read_config
from regente.models.protocols import BuildsBackbone


def load_model(job: Job, checkpoint: Path, *, own: bool = False) -> nn.Module:
    """The model of a job on the CPU, in eval mode; the whole task, where that is not a `regente.Supervised`.

    `own`: the caller is the job itself, whose config is trusted.

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
    node = OmegaConf.create(job.config)
    loaded_parts.update(own_parts({key: OmegaConf.select(node, key) for key in ("task", "model")}))
    target = OmegaConf.select(node, "task._target_")
    if is_supervised({"_target_": target}) and not is_none(config["model"]):
        model: nn.Module = instantiate(without_own_settings("model", config["model"]), _convert_="all")
        state = {
            key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")
        }
    else:
        model = _make_task(
            config if own else read_config(job, Path.cwd(), ["task", "monitor", *PARTS, *OPTIONAL])
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: the weights of another model ({reason})") from error
    for module in model.modules():
        if isinstance(module, BuildsBackbone):
            module.build_backbone()
    return model.eval()


def _make_task(config: dict[str, Any]) -> nn.Module:
    """A task that has its networks itself: its `forward` is the model."""
    made: dict[str, Any] = {"monitor": config["monitor"]["metric"]}
    for part in PARTS:
        node = without_own_settings(part, config[part])
        made[part] = None if is_none(node) else instantiate(node, _convert_="all")
    for part in [part for part in OPTIONAL if has(config, part)]:
        made[part] = instantiate(config[part], _convert_="all")
    node = {"_convert_": "all", **config["task"], "_partial_": True}
    with warnings.catch_warnings():  # Lightning's, about networks among the hyperparameters
        warnings.filterwarnings("ignore", "Attribute '.*' is an instance of `nn.Module`")
        task: nn.Module = instantiate(node)(**{name: made[name] for name in given_to(config["task"], config)})
    return task
