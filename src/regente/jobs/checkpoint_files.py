"""Checkpoint files that survive: whole or not there, with a receipt that tells damage, the newest good one findable.

A file is written beside its final name, synced, renamed, and then gets a receipt: `NAME.json` with size, SHA-256 and
step. A kill between the two leaves a file without a receipt, which is good if its own checksums say so.
"""

import errno
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from regente.errors import CheckpointError

DRAFT = re.compile(r"\.(.+)\.(\d+)\.draft")  # the name that a file will have, and who writes it
POINT = re.compile(r"step-(\d+)(-validation|-end)?\.ckpt")
STAGES = ("-validation", "", "-end")  # of the same step, in the order of time
CHUNK = 1 << 20


@dataclass(frozen=True)
class Receipt:
    """What a file must be."""

    size: int  # bytes
    sha256: str
    step: int


class Measured:
    """A binary file that counts and hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.digest = file, 0, sha256()

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        return self.file.write(view)

    def flush(self) -> None:
        self.file.flush()


def write(path: Path, step: int, save: Callable[[Any], None]) -> None:
    """Let `save` write into a file that appears under its name whole, and is on the disk when this returns.

    Raises:
        OSError: when the disk is full or refuses; what was there under the name is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            measured = Measured(file)
            save(measured)
            file.flush()
            os.fsync(file.fileno())
        _receipt_file(path).unlink(missing_ok=True)  # of the file that is replaced
        draft.replace(path)
        write_receipt(path, Receipt(measured.size, measured.digest.hexdigest(), step))
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def write_receipt(path: Path, receipt: Receipt) -> None:
    """Leave a receipt beside a file."""
    draft = path.with_name(f".{path.name}.json.{os.getpid()}.draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(receipt.__dict__, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(_receipt_file(path))


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too; where a folder cannot be opened that is the file system's to do."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def point_to(path: Path, pointer: Path) -> None:
    """Make `pointer` a relative link to a file, in one move."""
    draft = pointer.with_name(f".{pointer.name}.{os.getpid()}.draft")
    pointer.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # file systems without links do without the pointer
        draft.unlink(missing_ok=True)
        draft.symlink_to(os.path.relpath(path, pointer.parent))
        draft.replace(pointer)


def remove(path: Path) -> None:
    """Remove a checkpoint and its receipt."""
    path.unlink(missing_ok=True)
    _receipt_file(path).unlink(missing_ok=True)


def sweep(folder: Path) -> list[str]:
    """Remove what writers that died left unfinished, and receipts of files that are gone; the names."""
    swept = []
    for file in folder.iterdir() if folder.is_dir() else ():
        orphan = file.name.endswith(".ckpt.json") and not file.with_suffix("").exists()
        if orphan or DRAFT.fullmatch(file.name):
            with suppress(OSError):
                file.unlink()
                swept.append(file.name)
    return swept


def damage(path: Path) -> str:
    """What is wrong with a checkpoint file, nothing if it is whole. Reads all of it; torch is not needed."""
    if not path.exists():
        return "no such checkpoint"
    if path.is_dir():
        return "a folder, not a checkpoint"
    try:
        size = path.stat().st_size
        receipt = read_receipt(path)
        if size == 0:
            return "damaged: it is empty"
        if receipt is not None and size != receipt.size:
            return f"damaged: {size:,} of {receipt.size:,} bytes"
        if receipt is not None:
            with path.open("rb") as file:
                return (
                    ""
                    if _digest(file) == receipt.sha256
                    else "damaged: its content has changed since it was written"
                )
        return _damage_of_archive(path, size)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _damage_of_archive(path: Path, size: int) -> str:
    """The same by the checksums that torch writes into the file itself."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            cut = file.read(4) == b"PK\x03\x04"
        return f"damaged: cut off after {size:,} bytes" if cut else "not a checkpoint"
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return "not a checkpoint"
            bad = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        return f"damaged: {error}"
    return f"damaged: {bad} has changed" if bad else ""


def _digest(file: IO[bytes]) -> str:
    digest = sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def read_receipt(path: Path) -> Receipt | None:
    """The receipt of a file, if it has a readable one."""
    with suppress(OSError, ValueError, TypeError):
        return Receipt(**json.loads(_receipt_file(path).read_text(encoding="utf-8")))
    return None


def _receipt_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def points(folder: Path) -> list[Path]:
    """The states that a folder holds to go on from, newest first."""
    found = [(match, file) for file in _files(folder) if (match := POINT.fullmatch(file.name))]
    return [file for _, file in sorted(found, key=lambda each: place(each[1]), reverse=True)]


def place(path: Path) -> tuple[int, int]:
    """The step of a state to go on from, and its stage in that step; older ones are less."""
    match = POINT.fullmatch(path.name)
    assert match is not None
    return int(match[1]), STAGES.index(match[2] or "")


def _files(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()


def newest_valid(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest state that is whole, and what is wrong with those that are newer, a line each.

    Raises:
        CheckpointError: when there are some, and none is whole.
    """
    wrong: dict[Path, str] = {}
    for path in points(folder):
        if not (what := damage(path)):
            return path, wrong
        wrong[path] = f"{path}: {what}"
    if wrong:
        last = f"{folder}: none of them is whole; regente fork RUN begins with its best weights"
        raise CheckpointError("\n".join([*wrong.values(), last]))
    return None, {}


def is_full(error: OSError) -> bool:
    """Whether a disk had no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
