"""The gate to a directory that anybody may have made: regular files alone are opened, and none larger than expected."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

SMALL = 50_000_000  # bytes
LONGEST = 300  # digits of a whole number


def open_regular(path: Path) -> IO[bytes]:
    """A file to read.

    Raises:
        OSError: when it is missing, a link, a folder, a pipe or a device; to open a pipe would wait for ever.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path}: no regular file")
    return os.fdopen(number, "rb")


def irregular(folder: Path, *, whole: bool = False) -> Path | None:
    """A pipe, a device or a link to elsewhere in a job directory; None if there is none. `whole`: also in its folders.

    Who opens it for reading may wait for ever, and who opens it for writing may change a file elsewhere. Only with
    `whole` a linked folder counts: the checkpoints of a user's own run may lie on another disk.
    """
    return next(_irregular(os.path.realpath(folder), whole), None)


def _irregular(root: str, whole: bool) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        for name in [*files, *(folders if whole else ())]:
            path = os.path.join(place, name)  # noqa: PTH118
            target = os.path.realpath(path)
            inside = target.startswith(f"{root}{os.sep}")
            mode = Path(target).stat().st_mode if os.path.lexists(target) else stat.S_IFREG
            if not inside or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield Path(path)
        if not whole:
            return


def is_plain(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder with all that is in it, lies in `folder` and is no link: a link may name any file."""
    inside = path.resolve().is_relative_to(folder.resolve())
    return inside and path.exists() and not any(each.is_symlink() for each in (path, *path.rglob("*")))


def read_text(path: Path, most: int = SMALL) -> str:
    """The text of a small file.

    Raises:
        OSError: see open_regular; when it has more than `most` bytes.
        UnicodeDecodeError: when it is not UTF-8.
    """
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise OSError(f"{path}: {size:,} bytes, more than {most:,}")
        return file.read().decode("utf-8")


def _number(digits: str) -> float:
    """A whole number, or infinity for one that no float takes."""
    return int(digits) if len(digits) < LONGEST else float(digits)


def parse_json(text: str) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: when it is not JSON, or holds characters that no path and no store takes.
        RecursionError: when it is nested too deep.
    """
    value = json.loads(text, parse_int=_number)
    if "\\u" in text:
        again = json.dumps(value, ensure_ascii=False)
        again.encode(errors="surrogateescape")  # a path that is not UTF-8 is accepted
        if "\\u0000" in again.replace("\\\\", ""):
            raise ValueError("a null character")
    return value
