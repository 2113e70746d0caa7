"""The contract that each data module inherits, on data that is there or that the test makes."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from regente.catalog import groups
from regente.compose import compose, resolve
from regente.data.batches import Batches, Split
from regente.data.images import Images
from regente.data.in_memory import InMemory
from regente.errors import ConfigError, DataError

OPTIONS = list(groups()["data"])
IMAGES = [option for option in OPTIONS if option not in {"text"}]  # what holds for images alone


def write_idx(path: Path, array: np.ndarray) -> None:
    """An array as a gzipped idx file, the format of MNIST."""
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small MNIST of random images, gzipped as it is published."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, number in (("train", 600), ("t10k", 100)):
        write_idx(
            raw / f"{part}-images-idx3-ubyte.gz", draw.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        )
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", draw.integers(0, 10, number, dtype=np.uint8))
    return tmp_path / "mnist"


def make(option: str, folder: Path, *overrides: str) -> Any:
    words = [f"data={option}", "data.batch_size=32", *overrides]
    if option == "mnist":
        words += [f"data.root={folder}", "data.num_val=100"]
    data = instantiate(resolve(compose("digits_cnn", words).node)["data"], _convert_="all")
    assert isinstance(data, InMemory)
    data.prepare_data()
    data.setup("fit")
    return data


def rows(split: Split) -> set[bytes]:
    return {bytes(image.numpy()) for image in split.x}


@pytest.mark.parametrize("option", IMAGES)
def test_the_declared_facts_hold(option: str, folder: Path) -> None:
    data = make(option, folder)
    labels = torch.cat([split.y for split in data.splits.values()])
    assert labels.unique().tolist() == list(range(data.num_classes))
    assert list(data.splits["train"].x.shape[1:]) == data.input_shape
    if option != "mnist":  # whose images the test made at random
        x = data.normalise(data.splits["train"].x)
        assert abs(x.mean().item()) < 0.01
        assert abs(x.std().item() - 1) < 0.01


@pytest.mark.parametrize("option", IMAGES)
def test_splits_share_nothing_and_do_not_depend_on_the_seed_of_the_run(option: str, folder: Path) -> None:
    data, again = make(option, folder, "seed=1"), make(option, folder, "seed=2")
    train, val, test = (rows(data.splits[name]) for name in ("train", "val", "test"))
    assert not (train & val or train & test or val & test)
    for name in data.splits:
        assert torch.equal(data.splits[name].x, again.splits[name].x)


@pytest.mark.parametrize("option", IMAGES)
def test_batches_have_the_stated_shape_and_dtype_and_are_normalised_on_the_device(
    option: str, folder: Path
) -> None:
    data = make(option, folder)
    x, y = next(iter(data.train_dataloader()))
    assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
    assert list(x.shape) == [32, *data.input_shape]
    x, _ = data.on_after_batch_transfer((x, y), 0)
    assert x.dtype == torch.float32


@pytest.mark.parametrize("option", OPTIONS)
def test_the_order_is_a_function_of_seed_and_epoch(option: str, folder: Path) -> None:
    a, b = (
        make(option, folder, "seed=3").train_dataloader(),
        make(option, folder, "seed=3").train_dataloader(),
    )
    other = make(option, folder, "seed=4").train_dataloader()
    for epoch in (0, 1, 0):
        a.set_epoch(epoch)
        b.set_epoch(epoch)
        assert torch.equal(a.order(), b.order())
    first = a.order()
    a.set_epoch(1)
    assert not torch.equal(first, a.order())
    assert not torch.equal(first, other.order())


def numbered(total: int) -> Split:
    return Split(torch.arange(total, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(total))


@pytest.mark.parametrize("total", [31, 32, 33])
@pytest.mark.parametrize("seed", [None, 5])
def test_an_epoch_has_each_sample_once_and_as_many_batches_as_it_says(total: int, seed: int | None) -> None:
    batches = Batches(numbered(total), 8, seed=seed)
    got = list(batches)
    assert len(got) == len(batches)
    assert sorted(torch.cat([y for _, y in got]).tolist()) == list(range(total))
    assert all(torch.equal(x.flatten().long(), y) for x, y in got)


def test_ranks_share_out_an_evaluation_exactly_once_and_take_equal_steps_in_training() -> None:
    shares = [Batches(numbered(33), 4, rank=rank, world_size=4) for rank in range(4)]
    assert sorted(torch.cat([share.order() for share in shares]).tolist()) == list(range(33))
    trained = [Batches(numbered(33), 4, seed=1, rank=rank, world_size=4) for rank in range(4)]
    assert {len(share) for share in trained} == {2}
    assert len(torch.cat([share.order() for share in trained]).unique()) == 32


def test_declaring_what_the_files_do_not_hold_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.num_classes: 9, but a label is 9"):
        make("digits", folder, "data.num_classes=9")
    with pytest.raises(ConfigError, match=r"data.input_shape: \[1, 8, 8\], but images are \[1, 28, 28\]"):
        make("digits", folder, "data.input_shape=[1,8,8]")


def mnist(**arguments: Any) -> Images:
    from regente.data.mnist import MNIST

    facts = {
        "num_classes": 10,
        "input_shape": [1, 28, 28],
        "class_names": list("0123456789"),
        "mean": [0.1],
        "std": [0.3],
    }
    return MNIST(batch_size=4, **facts, **arguments)


def test_mnist_names_the_setting_of_a_folder_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"data.root=/nope: no such directory"):
        mnist(root="/nope").prepare_data()


def test_mnist_says_what_to_do_when_it_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError, match=r"put train-images-idx3-ubyte.gz.* data.root=PATH"):
        mnist(root=str(tmp_path)).prepare_data()


def test_mnist_that_is_damaged_is_said_to_be(folder: Path) -> None:
    write_idx(folder / "MNIST/raw/train-images-idx3-ubyte.gz", np.zeros((3, 28), dtype=np.uint8))
    with pytest.raises(DataError, match="damaged"):
        make("mnist", folder)


def test_a_validation_split_as_large_as_the_training_file_is_refused(folder: Path) -> None:
    data = mnist(root=str(folder), num_val=600)
    data.prepare_data()
    with pytest.raises(DataError, match=r"data.num_val=600: nothing left to train on"):
        data.setup("fit")
