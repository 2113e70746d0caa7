"""A folder of images, with a directory for each class."""

import os
import shutil
import time
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt

from regente.data.core.cache import DESCRIPTION, build_once, cache_dir, folder_size, require_undamaged
from regente.data.core.class_folders import File, Listing, list_images
from regente.data.core.decoding import NOT_READ, VERSION, Decoded, decode_files, read_decoded
from regente.data.core.images import Images
from regente.data.core.sources import IndexedSplit
from regente.data.core.splitting import (
    SPLITS,
    Members,
    carve_missing,
    duplicates,
    members_of,
    require_rest,
)
from regente.errors import ConfigError, DataError, Problem

SHOWN = 5  # names of a longer list


class ImageFolder(Images):
    """Photos in root/train/CLASS, root/val/CLASS and root/test/CLASS, or in root/CLASS alone.

    They are decoded once, at the first use: upright, RGB, the central square resized to `resolution`, uint8. All jobs
    map that cache into memory. Classes are the names of the folders, sorted, or in the order of `class_names`.
    Split: by folder. A missing val or test is carved out of train: of each class the images with the lowest hash of
    (split_seed, content of the file), see `splitting.carve`.
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
        self.shares, self.split_seed = require_rest(val_share, test_share), split_seed

    @property
    def source(self) -> str:
        return str(self.root)

    def prepare_data(self) -> None:
        """List all files, then decode them unless the cache has them."""
        if not self.splits:
            self._cache()

    @cached_property
    def listing(self) -> Listing:
        """The files; their classes are compared with the declared ones."""
        listing = list_images(self.root, self.class_names)
        if (number := len(listing.names)) != self.num_classes:
            what = f"{self.root} has {number} class directories; data.num_classes={number} would be right"
            raise ConfigError([Problem(f"data.num_classes={self.num_classes}", what)])
        self.class_names = listing.names
        return listing

    def _cache(self) -> Path:
        """The folder of the decoded images; its name is a hash of root, resolution, and name, size and time of each file."""
        settings = f"{VERSION}\0{self.resolution}\0{self.root.resolve()}\0"
        key = blake2b(settings.encode(errors="surrogateescape"), digest_size=16)
        files = [file for file, _ in self.listing.files]
        for file in files:
            key.update(f"{file.path}\0{file.size}\0{file.modified}\0".encode(errors="surrogateescape"))
        folder = cache_dir() / "images" / key.hexdigest()

        def build(draft: Path) -> None:
            started = time.perf_counter()
            what = f"{self.root}, {len(files):,} images of {self.resolution} pixels"
            (draft / DESCRIPTION).write_text(what, encoding="utf-8", errors="replace")
            decode_files(self.root, [file.path for file in files], self.resolution, draft)
            seconds = time.perf_counter() - started
            self.notes.append(
                f"{len(files):,} images decoded in {seconds:.1f} s; later jobs read {folder}, "
                f"{folder_size(draft) / 1e6:,.1f} MB that may be deleted"
            )

        return build_once(folder, build)

    def read(self) -> dict[str, IndexedSplit]:
        decoded = self._decoded(self._cache())
        not_read = [path for path, reason in decoded.bad.items() if reason.startswith(NOT_READ)]
        if any(os.access(self.root / path, os.R_OK) for path in not_read):  # readable by now
            shutil.rmtree(self._cache())
            decoded = self._decoded(self._cache())
        self._report_unreadable(decoded)
        files = [(file, split) for file, split in self.listing.files if file.path not in decoded.bad]
        members = members_of(split for _, split in files)
        self._note_oddities(members, decoded, [file for file, _ in files])
        labels = torch.tensor([file.label for file, _ in files])
        self._carve(members, decoded.digests, labels.tolist())
        rows = {name: torch.tensor(members[name], dtype=torch.int64) for name in SPLITS}
        splits = {name: IndexedSplit(decoded.pixels, index, labels[index]) for name, index in rows.items()}
        self.digest = self._digest(splits, decoded.digests)
        del self.listing  # half a gigabyte for a million files
        return splits

    def _decoded(self, folder: Path) -> Decoded:
        try:
            require_undamaged(folder)
            return read_decoded(folder, self.resolution)
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{folder}: damaged ({error}); delete it and start again") from error

    def _report_unreadable(self, decoded: Decoded) -> None:
        """Refuse images that cannot be read, or note that they are left out."""
        if not decoded.bad:
            return
        which = _some([f"{path} ({reason})" for path, reason in decoded.bad.items()])
        if self.on_bad == "stop":
            what = f"{len(decoded.bad):,} of {len(self.listing.files):,} images cannot be read: {which}"
            raise DataError(
                f"{self.root}: {what}; repair or remove them, or leave them out: data.on_bad=skip"
            )
        self.notes.append(f"{_number(decoded.bad, 'image')} left out that cannot be read: {which}")

    def _note_oddities(self, members: Members, decoded: Decoded, files: Sequence[File]) -> None:
        if ignored := self.listing.ignored:
            which = _some(ignored)
            self.notes.append(f"{_number(ignored, 'file')} ignored, not images in a class directory: {which}")
        pairs = [f"{files[a].path} = {files[b].path}" for a, b in duplicates(members, decoded.digests)]
        if pairs:
            self.notes.append(f"{_number(pairs, 'image')} in two splits, byte for byte: {_some(pairs)}")

    def _carve(self, members: Members, digests: Sequence[bytes], labels: Sequence[int]) -> None:
        """Complete the members with val and test, carved out of train where they have no folder."""
        names, given = self.listing.names, self.listing.splits
        for label in set(range(len(names))) - {labels[number] for number in members["train"]}:
            raise DataError(f"{self.root}: no image of {names[label]} in train can be read; repair its files")
        note = carve_missing(self.root, members, given, digests, labels, names, self.split_seed, self.shares)
        self.notes += [note] if note else []

    def _digest(self, splits: dict[str, IndexedSplit], digests: Sequence[bytes]) -> str:
        """Of the content, label and split of each file, and of how the files were decoded."""
        digest = blake2b(f"{VERSION} {self.resolution}".encode(), digest_size=16)
        for name, split in sorted(splits.items()):
            digest.update(f" {name} {len(split)} ".encode())
            digest.update(b"".join(digests[number] for number in split.rows.tolist()))
            digest.update(split.y.numpy().data)
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        return self.identity_with(self.digest)  # without reading all pixels again


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _number(things: Any, noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"
