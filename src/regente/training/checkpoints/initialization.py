"""What a training starts from: the newest resume state, the weights of another run, or nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from regente.errors import CheckpointError
from regente.jobs import checkpoint_files
from regente.jobs.checkpoint_files import load
from regente.jobs.job import Job, fits
from regente.jobs.runs import shown
from regente.training.checkpoints.writing import remove_drafts
from regente.training.ranks.consensus import of_rank_0
from regente.training.ranks.rank import this_rank


@dataclass(frozen=True)
class ResumeState:
    """The state from which a run is resumed."""

    path: Path
    grouped_steps: int | None  # steps in a call, see grouped_steps.py; None: Lightning or the task takes them


def find_resume_state(job: Job, notes: list[str]) -> ResumeState | None:
    """The newest undamaged state of a job, none if it has none. Newer, damaged ones are removed, with a note for each.

    Raises:
        CheckpointError: when there are states and all are damaged.
    """
    path, damaged = None, dict[Path, str]()
    if this_rank().number == 0:
        remove_drafts(job.resume_states)
        remove_drafts(job.checkpoints)
        path, damaged = checkpoint_files.newest_undamaged(job.resume_states)
    name = of_rank_0("resume_state", path.name if path else "")
    path = job.resume_states / name if name else None
    for each, what in damaged.items():
        notes.append(f"{what}; the state before it is used")
        each.unlink()
    if path is None:
        return None
    content = load(path, mmap=True)
    step, position = content.get("global_step"), content.get("position")
    steps: Any = position.get("grouped_steps", "") if isinstance(position, dict) else ""
    if not (fits(int | None, steps) and fits(int, step)):
        what = "holds no position of a training; delete it, and the state before it is used"
        raise CheckpointError(f"{shown(path)}: {what}")
    notes.append(f"resumes from step {step:,}")
    return ResumeState(path, steps)


def below(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The weights of one of the modules in a state dict, as they are named in it."""
    return {key.removeprefix(f"{name}."): each for key, each in state.items() if key.startswith(f"{name}.")}


def loss_buffers(task: LightningModule) -> Iterator[tuple[str, Tensor]]:
    """The buffers of losses, such as the weights of classes: settings, though a state dict holds them; with their names."""
    for name, module in task.named_modules():
        if name and "loss" in type(module).__name__.lower():
            yield from module.named_buffers(prefix=name, recurse=False)


def initialize_from(task: LightningModule, path: Path) -> str:
    """Load weights into the task or its model, of a checkpoint or state dict of any program; returns a note about it.

    Names may have the prefix of the module that held the network there, such as `net.`.

    Raises:
        CheckpointError: when they are missing, damaged or those of another model.
    """
    content = checkpoint_files.load_foreign(path)
    state = checkpoint_files.weights_of(content)
    module: nn.Module = task if "state_dict" in content else getattr(task, "model", task)
    inner = sorted({key.partition(".")[0] for key in state})
    forms = [content.get("state_dict", content), state, *(below(state, name) for name in inner)]
    for each in (module, task, *task.children()):
        fitting = next((form for form in forms if form.keys() == each.state_dict().keys()), None)
        if fitting and sum(1 for _ in each.parameters()):
            module, state = each, fitting
            break
    kept = {name: each.clone() for name, each in loss_buffers(task)}
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())
        text = text.partition("state_dict for ")[2].partition(": ")[2] or text
        reason = shorten(text, 160, placeholder=" ...")
        what = f"the weights of another model than this {type(module).__name__}; name a run or file that fits"
        raise CheckpointError(f"init_from={path}: {what} ({reason})") from error
    for name, buffer in loss_buffers(task):
        buffer.copy_(kept[name])
    return f"starts from the weights of {shown(path)}"
