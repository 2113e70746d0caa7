"""`regente cache`: what is kept between runs, and how to be rid of it. Nothing here imports torch."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from regente.data.core.cache import DRAFT, USED, cache_dir, description
from regente.errors import ConfigError, Problem

KINDS = {"images": "decoded photos", "features": "of frozen backbones"}
DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Entry:
    """A folder of the cache, or what a run that was killed has left of one; times in seconds since 1970."""

    kind: str
    path: Path
    size: int  # bytes
    made: float
    used: float
    what: str

    @property
    def half(self) -> bool:
        """Whether it is not whole."""
        return self.path.name.endswith(DRAFT)

    @property
    def name(self) -> str:
        """What one gives to `clear`."""
        return self.path.name.removesuffix(DRAFT)


def entries() -> list[Entry]:
    """All of the cache, the latest used first."""
    found = [entry for kind in KINDS for entry in _entries(kind)]
    return sorted(found, key=lambda entry: -entry.used)


def _entries(kind: str) -> Iterator[Entry]:
    folder = cache_dir() / kind
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_dir():
            continue
        with suppress(OSError):  # another process may be faster
            files = [file.stat() for file in os.scandir(path)]
            made = max((facts.st_mtime for facts in files), default=path.stat().st_mtime)
            mark = path / USED
            used = mark.stat().st_mtime if mark.is_file() else made
            others = [file.stat().st_mtime for file in os.scandir(path) if file.name != USED]
            yield Entry(
                kind, path, sum(f.st_size for f in files), max(others, default=made), used, description(path)
            )


def remove(chosen: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Delete folders of the cache; returns those that are gone, and those that a process is just making."""
    from filelock import FileLock, Timeout

    gone: list[Entry] = []
    busy: list[Entry] = []
    for entry in chosen:
        lock = FileLock(entry.path.with_name(f"{entry.name}.lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(entry.path, ignore_errors=True)
        except Timeout:
            busy.append(entry)
        else:
            gone.append(entry)
    return gone, busy


def matching(names: Sequence[str], older_than: float | None) -> list[Entry]:
    """The entries that are meant: by kind or by the start of a name, and not used for `older_than` days.

    Raises:
        ConfigError: when a name means nothing.
    """
    there, chosen = entries(), dict[Path, Entry]()
    for name in names:
        found = [entry for entry in there if name in ("all", entry.kind) or entry.name.startswith(name)]
        if not found and name not in ("all", *KINDS):
            known = ", ".join(["all", *KINDS, *(entry.name for entry in there[:3])])
            raise ConfigError([Problem(f"cache {name}", f"nothing of that name; there is: {known}")])
        chosen |= {entry.path: entry for entry in found}
    limit = time.time() - (older_than or 0) * DAY
    return [entry for entry in chosen.values() if older_than is None or entry.used < limit]


@click.group(name="cache", invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """List what is kept between runs, all of which may go.

    Decoded photos, and features of frozen backbones.

    \b
    regente cache                              size, age and last use of each
    regente cache clear 1f3a                   one, by the start of its name
    regente cache clear features               all of a kind: features, images
    regente cache clear all --older-than 30    what was not used for 30 days
    """
    if context.invoked_subcommand:
        return
    found = entries()
    for entry in found:
        half = " (half made)" if entry.half else ""
        ages = f"made {_ago(entry.made)}, used {_ago(entry.used)}"
        click.echo(
            f"{entry.kind:<9} {_size(entry.size):>9}  {entry.name[:24]:<24}  {ages}  {entry.what}{half}"
        )
    total = sum(entry.size for entry in found)
    click.echo(f"{_size(total)} in {cache_dir()}" if found else f"nothing is kept in {cache_dir()}")


@cache.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|images|features|all...")
@click.option(
    "--older-than", type=click.FloatRange(0), metavar="DAYS", help="Only what was not used for so long."
)
def clear(names: tuple[str, ...], older_than: float | None) -> None:
    """Delete some or all of it; what a run is just making stays."""
    gone, busy = remove(matching(names, older_than))
    for entry in busy:
        click.echo(f"{entry.kind} {entry.name} stays: a run is making it")
    click.echo(f"{len(gone)} deleted, {_size(sum(entry.size for entry in gone))}")


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
