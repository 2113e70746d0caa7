"""Folders that are built once and read by every later job."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from regente.errors import DataError

if TYPE_CHECKING:
    from filelock import BaseFileLock

DRAFT = ".part"  # suffix of a folder that is being built
DESCRIPTION = "description.txt"  # a file that describes the folder in one line
USED = "used"  # a file whose modification time is that of the last use


def cache_dir() -> Path:
    """The user's cache folder for data and features: `$XDG_CACHE_HOME/regente`, else `~/.cache/regente`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regente"


def build_once(folder: Path, build: Callable[[Path], None], *, resumable: bool = False) -> Path:
    """`folder`, filled by `build` unless it exists; it appears complete or not at all.

    Of several processes one builds it and the others wait. The draft of a killed process is deleted by the next one,
    or passed to its `build` where that is `resumable`.

    Raises:
        DataError: when the cache cannot be written.
    """
    if folder.is_dir():
        mark_used(folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not folder.is_dir():
                _build(folder, build, resumable)
        mark_used(folder)
    except OSError as error:
        what = f"cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder with room"
        raise DataError(f"{folder.parent}: {what}") from error
    return folder


def _lock(folder: Path) -> "BaseFileLock":
    """An acquired lock; a user at a terminal reads what the process waits for."""
    from filelock import FileLock, Timeout  # a third of the time that the command line takes to start

    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        if console.is_terminal:
            console.print(f"waiting for the process that builds {folder}")
        lock.acquire()
    return lock


def _build(folder: Path, build: Callable[[Path], None], resumable: bool) -> None:
    draft = folder.with_name(f"{folder.name}{DRAFT}")
    if not resumable:
        shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(exist_ok=True)
    try:
        build(draft)
        draft.rename(folder)
    finally:
        if not resumable:
            shutil.rmtree(draft, ignore_errors=True)


def mark_used(folder: Path) -> None:
    """Note the time of use, for `regente cache`."""
    with suppress(OSError):  # the folder of another user, or a read-only disk
        (folder / USED).touch()


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def description(folder: Path) -> str:
    """The description of a folder, empty where there is none."""
    with suppress(OSError, UnicodeDecodeError):
        return (folder / DESCRIPTION).read_text(encoding="utf-8")
    return ""
