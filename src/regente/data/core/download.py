"""Download of published files."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import click

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Published:
    """A published file: its path under the root, its MD5, and its https addresses."""

    place: str
    md5: str
    urls: Sequence[str]


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(file: Published, root: Path) -> None:
    """Download a file over https; it gets its name only when its MD5 is right.

    Raises:
        OSError: when no address gives the right file; with the reason of the last one.
    """
    target = root / file.place
    failure: Exception | None = None
    for url in file.urls:
        try:
            return _fetch(url, file.md5, target)
        except (OSError, HTTPException) as error:
            failure = error
    raise OSError(str(failure or f"no https address is known for {target.name}"))


def _fetch(url: str, md5: str, target: Path) -> None:
    click.echo(f"downloading {url}", err=True)
    with atomic_write(target) as part, urlopen(url, timeout=TIMEOUT) as response:
        if not response.url.startswith("https:"):
            raise OSError(f"{url} leads to {response.url}, which is not https")
        with part.open("wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
        if (got := md5_of(part)) != md5:
            raise OSError(f"{url} gives a file of MD5 {got} instead of {md5}")


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """A path to write to, which is renamed to the target at the end and deleted after an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
