"""Images in a folder per class: splits, classes and files. Imports nothing heavy."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from regente.errors import ConfigError, DataError, Problem

# torchvision.datasets.folder.IMG_EXTENSIONS
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class File(NamedTuple):
    """An image: its path below the root, its label, and size and time, which show a change."""

    path: str
    label: int
    size: int  # bytes
    modified: int  # nanoseconds


@dataclass(frozen=True)
class Listing:
    """The classes in the order of their labels, the splits that have a folder, each image with its split, sorted by
    path, and the other files.
    """

    names: list[str]
    splits: list[str]
    files: list[tuple[File, str]]
    ignored: list[str]


def find_splits(root: Path) -> dict[str, Path]:
    """The folder of each split that has one; where root holds the classes, `train` is root itself.

    Raises:
        DataError: when there is no folder to train on, or a split has two folders.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such directory; name the one that holds train/CLASS or CLASS")
    there = _folders(root)
    if "train" not in there or not (_folders(root / "train") or set(there) <= _split_names()):
        if there and set(there) <= _split_names():
            raise DataError(f"{root}: {', '.join(there)}, but no train; name its folder train")
        return {"train": root}
    found = {}
    for split, names in SPLITS.items():
        folders = [name for name in names if name in there]
        if len(folders) > 1:
            raise DataError(f"{root}: both {' and '.join(folders)}; keep one of them")
        if folders:
            found[split] = root / folders[0]
    return found


def _split_names() -> set[str]:
    return {name for names in SPLITS.values() for name in names}


def class_names(folder: Path) -> list[str]:
    """The class folders of a split, sorted.

    Raises:
        DataError: when there are fewer than two.
    """
    names = _folders(folder)
    if not names:
        raise DataError(
            f"{folder}: no class directories; put the images of each class into a directory of its own"
        )
    if inside := [name for name in names if "train" in _folders(folder / name)]:
        raise DataError(
            f"{folder}: {inside[0]} has a directory train; did you mean data.root={folder / inside[0]}?"
        )
    if len(names) == 1:
        hint = f"; or did you mean data.root={folder / names[0]}?" if _folders(folder / names[0]) else ""
        raise DataError(f"{folder}: a single class directory, {names[0]}; at least two are needed{hint}")
    return names


def list_images(root: Path, names: Sequence[str] | None = None) -> Listing:
    """All images below a root; a label is the place of the folder in `names`, by default the sorted folders of train.

    Raises:
        ConfigError: when `names` are not the folders of train.
        DataError: names each class that is empty in train, or missing from train, val or test.
    """
    root = root.absolute()
    splits = find_splits(root)
    there = class_names(splits["train"])
    names = list(names or there)
    if sorted(names) != there:
        odd = ", ".join(sorted(set(names) ^ set(there))) or "one of them is there twice"
        what = f"not the directories in {splits['train']} ({odd}); null, or all of them, would be right"
        raise ConfigError([Problem("data.class_names", what)])
    problems: list[str] = []
    files: list[tuple[File, str]] = []
    ignored: list[str] = []
    for split, folder in splits.items():
        problems += _differences(split, folder, there)
        for label, name in enumerate(names):
            files += [(file, split) for file in _images(folder / name, label, len(str(root)) + 1, ignored)]
        ignored += [entry.path for entry in _entries(folder) if not entry.is_dir()]
    problems += _empty(splits["train"], names, {file.label for file, split in files if split == "train"})
    if problems:
        more = [f"and {len(problems) - 7} more"] if len(problems) > 7 else []
        raise DataError("\n".join(problems[:7] + more))
    return Listing(
        names, list(splits), sorted(files), [path[len(str(root)) + 1 :] for path in sorted(ignored)]
    )


def _differences(split: str, folder: Path, names: list[str]) -> Iterator[str]:
    there = _folders(folder)
    for name in sorted(set(names) - set(there)):
        yield f"{folder}: lacks the class {name}; add the folder {name} to {split}, it may be empty"
    for name in sorted(set(there) - set(names)):
        yield f"{folder}: has the class {name}, which train lacks; add it to train, or remove it"


def _empty(folder: Path, names: list[str], filled: set[int]) -> list[str]:
    if not filled:
        known = f"images end in {' '.join(EXTENSIONS)}"
        return [f"{folder}: no images in any of {len(names)} class directories; {known}"]
    lacking = [name for label, name in enumerate(names) if label not in filled]
    return [f"{folder / name}: no images; add some, or remove the directory" for name in lacking]


def _images(folder: Path, label: int, cut: int, ignored: list[str]) -> list[File]:
    """The images at any depth below a folder; the first `cut` characters of a path are the root."""
    found, todo, seen = [], [folder], set()
    while todo:
        current = todo.pop()
        if not current.is_dir() or (place := current.resolve()) in seen:  # a link may point to a parent
            continue
        seen.add(place)
        for entry in _entries(current):
            if entry.is_dir():
                todo.append(Path(entry.path))
            elif entry.name.lower().endswith(EXTENSIONS):
                found.append(_file(entry, label, cut))
            else:
                ignored.append(entry.path)
    return found


def _file(entry: "os.DirEntry[str]", label: int, cut: int) -> File:
    try:
        facts = entry.stat()
    except OSError:  # a broken link: decoding reports it
        return File(entry.path[cut:], label, 0, 0)
    return File(entry.path[cut:], label, facts.st_size, facts.st_mtime_ns)


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """The entries of a folder, without hidden ones and those of macOS archives."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
