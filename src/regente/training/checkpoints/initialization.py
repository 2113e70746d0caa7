"""Where a training begins: at its start, with the weights of another run, or where it was interrupted."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from pytorch_lightning import LightningModule
from torch import nn

from regente.errors import CheckpointError
from regente.jobs import checkpoint_files
from regente.jobs.checkpoint_loading import load
from regente.jobs.job import Job
from regente.jobs.runs import shown
from regente.training.ranks.consensus import of_rank_0
from regente.training.ranks.rank import this_rank


@dataclass(frozen=True)
class Point:
    """The state that a run goes on from."""

    path: Path
    group: int  # batches that come as one from there on
    grouped: bool  # whether the steps are taken by hand, as grouped_steps.py has it, be it one by one
    attempt: int  # the attempt of the run in which it was saved


def resume_state(job: Job, notes: list[str]) -> Point | None:
    """The newest whole state of a job that was interrupted; none where it begins. Damaged ones are removed.

    Raises:
        CheckpointError: when there are some, all damaged.
    """
    path, wrong = None, dict[Path, str]()
    if this_rank().number == 0:
        checkpoint_files.sweep(job.resume_states)
        checkpoint_files.sweep(job.checkpoints)
        path, wrong = checkpoint_files.newest_valid(job.resume_states)
    name = of_rank_0("resume_state", path.name if path else "")
    path = job.resume_states / name if name else None
    notes += [f"{what}; the one before it is taken" for what in wrong.values()]
    for damaged in wrong:
        checkpoint_files.remove(damaged)
    if path is None:
        return None
    content = load(path, mmap=True)
    notes.append(f"goes on from step {content['global_step']:,}")
    position = content["position"]
    return Point(path, position["group"], position["grouped"], position["attempt"])


def initialize_from(task: LightningModule, path: Path) -> str:
    """Give the task the weights of a checkpoint, or bare ones; what was done, in words.

    Raises:
        CheckpointError: when they are missing, damaged or another model's.
    """
    content = load(path)
    state, whole = content.get("state_dict", content), "state_dict" in content
    module: nn.Module = task if whole else task.model  # type: ignore[assignment]  # bare weights are the model's
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        reason = shorten(
            said.partition("state_dict for ")[2].partition(": ")[2] or said, 160, placeholder=" ..."
        )
        what = f"the weights of another model than {type(task.model).__name__} as it is set; name a run or file of it"
        raise CheckpointError(f"init_from={path}: {what} ({reason})") from error
    return f"begins with the weights of {shown(path)}"
