"""Reading a checkpoint, as data."""

import re
from pathlib import Path
from typing import Any

import torch

from regente.errors import CheckpointError
from regente.jobs import checkpoint_files


def load(path: Path, map_location: Any = "cpu", *, mmap: bool = False) -> dict[str, Any]:
    """What a checkpoint file holds, which is plain data.

    Raises:
        CheckpointError: when it is missing, damaged, holds code, or is no checkpoint.
    """
    try:
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; put it back, or name another run") from error
    except Exception as error:  # torch has no one error for a file that is torn
        if what := checkpoint_files.damage(path):
            raise CheckpointError(f"{path}: {what}; name another checkpoint or run") from error
        reason = " ".join(str(error).split())
        code = re.search(r"(?:GLOBAL|class) ([\w.]+)", reason)
        if code:
            raise CheckpointError(
                f"{path}: refused, it holds code ({code[1]}); only plain types and tensors are loaded"
            ) from error
        raise CheckpointError(f"{path}: not a checkpoint ({reason[:150]}); name another") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint, but a {type(content).__name__}; name another")
    return content
