"""`regente cache`: lists and deletes cached data and features. Imports no torch."""

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
    """A folder of the cache, complete or left by a killed run; times in seconds since 1970."""

    kind: str
    path: Path
    size: int  # bytes
    created: float
    used: float
    description: str

    @property
    def incomplete(self) -> bool:
        return self.path.name.endswith(DRAFT)

    @property
    def name(self) -> str:
        """The name for `regente cache clear`."""
        return self.path.name.removesuffix(DRAFT)


def entries() -> list[Entry]:
    """All folders of the cache, the last used first."""
    found = [entry for kind in KINDS for entry in _entries(kind)]
    return sorted(found, key=lambda entry: -entry.used)


def _entries(kind: str) -> Iterator[Entry]:
    folder = cache_dir() / kind
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_dir():
            continue
        with suppress(OSError):  # another process may have deleted it
            files = [file.stat() for file in os.scandir(path)]
            created = max((facts.st_mtime for facts in files), default=path.stat().st_mtime)
            mark = path / USED
            used = mark.stat().st_mtime if mark.is_file() else created
            others = [file.stat().st_mtime for file in os.scandir(path) if file.name != USED]
            yield Entry(
                kind,
                path,
                sum(f.st_size for f in files),
                max(others, default=created),
                used,
                description(path),
            )


def remove(chosen: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Delete folders of the cache; returns the deleted ones, and those that a process is building."""
    from filelock import FileLock, Timeout

    deleted: list[Entry] = []
    busy: list[Entry] = []
    for entry in chosen:
        lock = FileLock(entry.path.with_name(f"{entry.name}.lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(entry.path, ignore_errors=True)
        except Timeout:
            busy.append(entry)
        else:
            deleted.append(entry)
    return deleted, busy


def matching(names: Sequence[str], older_than: float | None) -> list[Entry]:
    """The entries of these kinds or starts of names that were not used for `older_than` days.

    Raises:
        ConfigError: when there is no such kind or name.
    """
    there, chosen = entries(), dict[Path, Entry]()
    for name in names:
        found = [entry for entry in there if name in ("all", entry.kind) or entry.name.startswith(name)]
        if not found and name not in ("all", *KINDS):
            known = ", ".join(["all", *KINDS, *(entry.name for entry in there[:3])])
            raise ConfigError([Problem(f"cache {name}", f"no such entry; there is: {known}")])
        chosen |= {entry.path: entry for entry in found}
    limit = time.time() - (older_than or 0) * DAY
    return [entry for entry in chosen.values() if older_than is None or entry.used < limit]


@click.group(name="cache", invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """List cached data: decoded photos and features of frozen backbones.

    All of it may be deleted; later runs compute it again.

    \b
    regente cache                              size, age and last use of each
    regente cache clear 1f3a                   one, by the start of its name
    regente cache clear features               all features (or images)
    regente cache clear all --older-than 30    what was not used for 30 days
    """
    if context.invoked_subcommand:
        return
    found = entries()
    for entry in found:
        incomplete = " (incomplete)" if entry.incomplete else ""
        ages = f"created {_ago(entry.created)}, used {_ago(entry.used)}"
        click.echo(
            f"{entry.kind:<9} {_size(entry.size):>9}  {entry.name[:24]:<24}  {ages}  {entry.description}{incomplete}"
        )
    total = sum(entry.size for entry in found)
    click.echo(f"{_size(total)} in {cache_dir()}" if found else f"nothing is cached in {cache_dir()}")


@cache.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|images|features|all...")
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Only entries that were not used for this many days.",
)
def clear(names: tuple[str, ...], older_than: float | None) -> None:
    """Delete some or all entries, but none that a run is building."""
    deleted, busy = remove(matching(names, older_than))
    for entry in busy:
        click.echo(f"{entry.kind} {entry.name} is kept: a run is building it")
    click.echo(f"{len(deleted)} deleted, {_size(sum(entry.size for entry in deleted))}")


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
