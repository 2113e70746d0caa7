"""How a checkpoint file is written, linked and removed: under its name it is complete or not there.

A file is written under another name beside its own, synced to the disk, then renamed. Nothing here imports torch.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

DRAFT = re.compile(
    r"\.(.+)\.(\d+)\.draft"
)  # the file's own name, and the number of the process that writes it


def write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Let `save` write a file, which replaces `path` once it is complete; on return it is on the disk.

    Raises:
        OSError: when the disk is full or refuses; an older file of this name stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        with draft.open("wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def link(path: Path, to: Path) -> None:
    """Make `path` a relative link to a file, in one step."""
    draft = _draft(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # some file systems have no links
        draft.unlink(missing_ok=True)
        draft.symlink_to(os.path.relpath(to, path.parent))
        draft.replace(path)


def remove_drafts(folder: Path) -> list[str]:
    """Remove the unfinished files of processes that were killed; returns their names."""
    removed = []
    for file in folder.iterdir() if folder.is_dir() else ():
        if DRAFT.fullmatch(file.name):
            with suppress(OSError):
                file.unlink()
                removed.append(file.name)
    return removed


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.draft")


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder too, where the file system lets a folder be opened."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
