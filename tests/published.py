"""Small data sets of random images in the formats in which real ones come."""

import gzip
import hashlib
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision

TRAIN, TEST = 600, 100  # images


def write_idx(path: Path, array: np.ndarray) -> None:
    """An array as a gzipped idx file, the format of MNIST."""
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def publish_mnist(root: Path, name: str) -> Path:
    """Four gzipped idx files; the folder that they lie in."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, number in (("train", TRAIN), ("t10k", TEST)):
        images = draw.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", draw.integers(0, 10, number, dtype=np.uint8))
    return raw


def publish_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One archive of pickled batches. torchvision's table of checksums gets those of the files made here: the code
    that compares them is the real one."""
    kind = getattr(torchvision.datasets, name)
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    key, classes = ("labels", 10) if name == "CIFAR10" else ("fine_labels", 100)
    for table, number in (("train_list", TRAIN), ("test_list", TEST)):
        sums = []
        for batch, _ in getattr(kind, table):
            size = number // len(getattr(kind, table))
            labels = (draw.permutation(size) % classes).tolist()
            content = {"data": draw.integers(0, 256, (size, 3072), dtype=np.uint8), key: labels}
            sums.append([batch, _pickle(folder / batch, content)])
        monkeypatch.setattr(kind, table, sums)
    meta = {**kind.meta, "md5": _pickle(folder / kind.meta["filename"], {kind.meta["key"]: []})}
    monkeypatch.setattr(kind, "meta", meta)
    archive = root / kind.filename
    with tarfile.open(archive, "w:gz") as out:
        out.add(folder, kind.base_folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def save_arrays(root: Path) -> Path:
    """A file own.npz of colour images."""
    draw = np.random.default_rng(0)
    content = {}
    for part, number in (("train", TRAIN), ("test", TEST)):
        content[f"x_{part}"] = draw.integers(0, 256, (number, 3, 12, 16), dtype=np.uint8)
        content[f"y_{part}"] = draw.integers(0, 10, number)
    np.savez(root / "own.npz", **content)
    return root / "own.npz"


def _pickle(path: Path, content: object) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()
