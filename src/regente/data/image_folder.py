"""A folder of images, with a directory for each class."""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt

from regente.data.core.cache import DESCRIPTION, build_once, cache_dir
from regente.data.core.class_folders import File, Listing, list_images
from regente.data.core.decoding import UNREAD, VERSION, Decoded, decode_files, read_decoded
from regente.data.core.images import Images
from regente.data.core.rows import Rows
from regente.data.core.splitting import Members, carve, shared
from regente.errors import ConfigError, DataError, Problem

SHOWN = 5  # names of a longer list


class ImageFolder(Images):
    """Photos in root/train/CLASS, root/val/CLASS and root/test/CLASS, or in root/CLASS alone.

    They are decoded once, at the first use: upright, RGB, their central square resized to `resolution`, uint8; all
    jobs map that cache. Classes are the names of the folders, sorted, or in the order of `class_names`.
    Split: as the folders say; where val or test is missing, it is carved out of train, of each class those that rank
    first by the hash of (split_seed, content of the file): see `splitting.carve`.
    """

    def __init__(
        self,
        root: str,
        resolution: Annotated[int, Ge(1)],
        val_share: Annotated[float, Gt(0), Lt(1)] = 0.15,
        test_share: Annotated[float, Gt(0), Lt(1)] = 0.15,
        split_seed: Annotated[int, Ge(0)] = 0,
        on_bad: Literal["stop", "skip"] = "stop",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.resolution, self.on_bad = Path(root).expanduser(), resolution, on_bad
        self.shares, self.split_seed = {"val": val_share, "test": test_share}, split_seed
        self.notes: list[str] = []  # what a user should know of the data, a line each
        if val_share + test_share >= 1:
            what = f"{val_share + test_share:g} together; below 1 would leave something to train on"
            raise ConfigError([Problem("data.val_share, data.test_share", what)])

    @property
    def source(self) -> str:
        return str(self.root)

    def prepare_data(self) -> None:
        """Look at the names of all files, then decode them unless that has been done."""
        if not self.splits:
            self._cache()

    @cached_property
    def listing(self) -> Listing:
        """The files, their classes held against what is declared."""
        listing = list_images(self.root, self.class_names)
        if (number := len(listing.names)) != self.num_classes:
            what = f"{self.root} has {number} class directories; data.num_classes={number} would be right"
            raise ConfigError([Problem(f"data.num_classes={self.num_classes}", what)])
        self.class_names = listing.names
        return listing

    def _cache(self) -> Path:
        """The folder of the decoded images, named by the root, the names, sizes and times of the files, and how."""
        how = f"{VERSION}\0{self.resolution}\0{self.root.resolve()}\0"
        key = blake2b(how.encode(errors="surrogateescape"), digest_size=16)
        files = [file for file, _ in self.listing.files]
        for file in files:
            key.update(f"{file.path}\0{file.size}\0{file.modified}\0".encode(errors="surrogateescape"))
        folder = cache_dir() / "images" / key.hexdigest()

        def make(draft: Path) -> None:
            started = time.perf_counter()
            what = f"{self.root}, {len(files):,} images of {self.resolution} pixels"
            (draft / DESCRIPTION).write_text(what, encoding="utf-8", errors="replace")
            decode_files(self.root, [file.path for file in files], self.resolution, draft)
            seconds = time.perf_counter() - started
            size = sum(file.stat().st_size for file in draft.iterdir()) / 1e6
            self.notes.append(
                f"{len(files):,} images decoded in {seconds:.1f} s; later jobs take them from {folder}, "
                f"{size:,.1f} MB that may be deleted"
            )

        return build_once(folder, make)

    def read(self) -> dict[str, Rows]:
        decoded = self._decoded(folder := self._cache())
        unread = [path for path, reason in decoded.bad.items() if reason.startswith(UNREAD)]
        if any(os.access(self.root / path, os.R_OK) for path in unread):  # it was mended since
            shutil.rmtree(folder)
            decoded = self._decoded(self._cache())
        self._judge(decoded)
        files = [(file, split) for file, split in self.listing.files if file.path not in decoded.bad]
        members: Members = defaultdict(list)
        for number, (_, split) in enumerate(files):
            members[split].append(number)
        self._note_oddities(members, decoded, [file for file, _ in files])
        labels = torch.tensor([file.label for file, _ in files])
        members = self._complete(members, decoded.digests, labels.tolist())
        rows = {name: torch.tensor(members[name], dtype=torch.int64) for name in ("train", "val", "test")}
        splits = {name: Rows(decoded.pixels, index, labels[index]) for name, index in rows.items()}
        self.digest = self._digest(splits, decoded.digests)
        del self.listing  # of a million files, half a gigabyte
        return splits

    def _decoded(self, folder: Path) -> Decoded:
        try:
            return read_decoded(folder, self.resolution)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: damaged ({error}); delete it and start again") from error

    def _judge(self, decoded: Decoded) -> None:
        """Refuse images that cannot be read, or say which are left out."""
        if not decoded.bad:
            return
        which = _some([f"{path} ({reason})" for path, reason in decoded.bad.items()])
        if self.on_bad == "stop":
            what = f"{len(decoded.bad):,} of {len(self.listing.files):,} images cannot be read: {which}"
            raise DataError(f"{self.root}: {what}; mend or remove them, or go on without: data.on_bad=skip")
        self.notes.append(f"{_number(decoded.bad, 'image')} left out that cannot be read: {which}")

    def _note_oddities(self, members: Members, decoded: Decoded, files: Sequence[File]) -> None:
        if ignored := self.listing.ignored:
            which = _some(ignored)
            self.notes.append(f"{_number(ignored, 'file')} ignored, not images in a class directory: {which}")
        pairs = [f"{files[a].path} = {files[b].path}" for a, b in shared(members, decoded.digests)]
        if pairs:
            self.notes.append(f"{_number(pairs, 'image')} in two splits, byte for byte: {_some(pairs)}")

    def _complete(self, members: Members, digests: Sequence[bytes], labels: Sequence[int]) -> Members:
        """The members with what is missing of val and test carved out of train."""
        names = self.listing.names
        for label in set(range(len(names))) - {labels[number] for number in members["train"]}:
            raise DataError(
                f"{self.root}: no image of {names[label]} in train can be read; mend its directory"
            )
        missing = {name: share for name, share in self.shares.items() if name not in self.listing.splits}
        if not missing:
            return members
        try:
            members = carve(members, digests, labels, self.split_seed, **missing)
        except ValueError as error:
            few = (
                f"{names[error.args[0]]} has too few different images to carve {' and '.join(missing)} out of"
            )
            raise DataError(f"{self.root}: {few}; {len(missing) + 1} are the least") from error
        sizes = " and ".join(f"{len(members[name]):,} for {name}" for name in missing)
        self.notes.append(f"no folder for {' and '.join(missing)}: {sizes} carved out of train")
        return members

    def _digest(self, splits: dict[str, Rows], digests: Sequence[bytes]) -> str:
        """Of the content of every file, its label and split, and of how they were decoded."""
        digest = blake2b(f"{VERSION} {self.resolution}".encode(), digest_size=16)
        for name, split in sorted(splits.items()):
            digest.update(f" {name} {len(split)} ".encode())
            digest.update(b"".join(digests[number] for number in split.rows.tolist()))
            digest.update(split.y.numpy().data)
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """As InMemory says it, without reading all pixels again."""
        splits = {name: len(split) for name, split in self.splits.items()}
        return {"name": type(self).__name__, "source": self.source, "digest": self.digest, "splits": splits}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _number(things: Any, noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"
