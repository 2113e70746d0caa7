"""Folders that are built once and read by every later job."""

import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from regente.errors import DataError
from regente.jobs.found_files import read_text
from regente.jobs.job import read_json, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

DRAFT = ".part"  # suffix of a folder that is being built
DESCRIPTION = "description.txt"  # a file that describes the folder in one line
USED = "used"  # a file whose modification time is that of the last use
CHECKSUMS = "checksums.json"  # of all files of a complete folder but these two: the CRC-32 of each block
BLOCK = 1 << 24  # bytes


def cache_dir() -> Path:
    """The user's cache folder for data and features: `$XDG_CACHE_HOME/regente`, else `~/.cache/regente`.

    It is made here, readable by the user alone; a folder that exists keeps its rights, so that a group may share it.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regente"
    with suppress(OSError):  # who writes into it says why it cannot be made
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def build_once(folder: Path, build: Callable[[Path], None], *, resumable: bool = False) -> Path:
    """`folder`, filled by `build` unless it exists; it appears complete or not at all.

    Of several processes one builds it and the others wait. The draft of a killed process is deleted by the next one,
    or passed to its `build` where that is `resumable`.

    Raises:
        DataError: when the cache cannot be written.
    """
    if is_complete(folder):
        mark_used(folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not is_complete(folder):
                _build(folder, build, resumable)
        mark_used(folder)
    except OSError as error:
        what = f"cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder with room"
        raise DataError(f"{folder.parent}: {what}") from error
    return folder


def is_complete(folder: Path) -> bool:
    """Whether a folder was built to its end; one without checksums, of an older version, is built anew."""
    return (folder / CHECKSUMS).is_file()


def require_undamaged(folder: Path) -> None:
    """Compare the checksums of a folder; all its files are read, on all cores, at 2 GB/s each.

    Raises:
        DataError: when a file has changed since it was built.
    """
    known = read_json(folder / CHECKSUMS)
    found = _checksums(folder)
    if changed := sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name)):
        what = f"damaged, it has changed; regente cache clear {folder.name}, then start again"
        raise DataError(f"{folder / changed[0]}: {what}")


def _checksums(folder: Path) -> dict[str, list[int]]:
    from regente.data.core.parallel import map_in_order  # not needed to list the cache

    files = [file for file in sorted(folder.iterdir()) if file.name not in (USED, CHECKSUMS)]
    blocks = [(file, at) for file in files for at in range(0, file.stat().st_size, BLOCK)]
    found: dict[str, list[int]] = {file.name: [] for file in files}
    for (file, _), number in zip(blocks, map_in_order(_checksum, blocks), strict=True):
        found[file.name].append(number)
    return found


def _checksum(block: tuple[Path, int]) -> int:
    with block[0].open("rb") as file:
        file.seek(block[1])
        return zlib.crc32(file.read(BLOCK))


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
        write_json(draft / CHECKSUMS, _checksums(draft))
        shutil.rmtree(folder, ignore_errors=True)  # of an older version
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
        return read_text(folder / DESCRIPTION)
    return ""
