"""The contract that each data module inherits, on data that is there or that the test makes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from regente.config.compose import compose
from regente.config.discovery import groups
from regente.config.interpolation import resolve
from regente.data.core.batches import Batches
from regente.data.core.in_memory import InMemory
from regente.data.core.sources import Split
from regente.data.series import Series
from regente.errors import ConfigError
from tests.published import publish_cifar, publish_mnist, save_arrays
from tests.tiny_bert import VOCABULARY, save_csv, tiny_bert

pytestmark = pytest.mark.slow  # not in `make quick`

SERIES = {
    "series": "series_forecast",
    "direction": "series_direction",
}  # more of them in tests/data/test_series.py
OPTIONS = [option for option in groups()["data"] if option not in (*SERIES, "none")]
IMAGES = [option for option in OPTIONS if not option.startswith("text")]  # what holds for images alone


# Made by the test in the published format, of random images
MADE: dict[str, Callable[..., Path]] = {
    "mnist": partial(publish_mnist, name="MNIST"),
    "fashion_mnist": partial(publish_mnist, name="FashionMNIST"),
    "cifar10": partial(publish_cifar, name="CIFAR10"),
    "cifar100": partial(publish_cifar, name="CIFAR100"),
    "arrays": save_arrays,
}


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the option that is tested, small, as they are published."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    option = getattr(request.node, "callspec", None) and request.node.callspec.params.get("option")
    if option in MADE:
        publish = MADE[option]
        publish(tmp_path, **({"monkeypatch": monkeypatch} if option.startswith("cifar") else {}))
    draw = np.random.default_rng(0)
    for place in (f"{split}/{name}" for split in ("train", "val", "test") for name in ("cat", "dog", "hen")):
        (tmp_path / "photos" / place).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / place / f"{number}.png")
    return tmp_path


def make(option: str, folder: Path, *overrides: str) -> Any:
    data = unread(option, folder, *overrides)
    data.prepare_data()
    data.setup("fit")
    return data


def unread(option: str, folder: Path, *overrides: str) -> Any:
    words = [f"data={option}", "data.batch_size=32", *overrides]
    if option == "arrays":
        words += [f"data.path={folder}/own.npz", "data.num_classes=10", "data.input_shape=[3,12,16]"]
    elif option in MADE:
        words += [f"data.root={folder}", "data.num_val=100"]
    if option == "image_folder":
        words += [f"data.root={folder / 'photos'}", "data.num_classes=3"]
    if option == "text_classification":
        words += [f"data.path={save_csv(folder / 'texts.csv', 300)}", f"data.tokenizer={tiny_bert()}"]
        words += ["data.num_classes=3", f"data.vocab_size={len(VOCABULARY)}"]
    experiment = {"text": "text_lstm", "text_classification": "text_minilm"}.get(option, "digits_cnn")
    data = instantiate(
        resolve(compose(experiment, words).node)["data"],
        _convert_="all",
    )
    assert isinstance(data, InMemory)
    return data


def rows(split: Split) -> set[bytes]:
    return {bytes(image.numpy()) for image in split.x}


@pytest.mark.parametrize("option", IMAGES)
def test_the_declared_facts_hold(option: str, folder: Path) -> None:
    data = make(option, folder)
    labels = torch.cat([split.y for split in data.splits.values()])
    assert labels.unique().tolist() == list(range(data.num_classes))
    assert list(data.splits["train"].x.shape[1:]) == data.input_shape
    if (option not in MADE or option == "arrays") and option != "image_folder":  # whose images are random
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


def make_series(option: str, *overrides: str) -> Series:
    words = [f"data={option}", "data.batch_size=32", *overrides]
    data = instantiate(resolve(compose(SERIES[option], words).node)["data"], _convert_="all")
    assert isinstance(data, Series)
    data.setup("fit")
    return data


@pytest.mark.parametrize("option", SERIES)
def test_a_series_keeps_the_contract_with_windows_for_samples(option: str) -> None:
    data, again = make_series(option, "seed=1"), make_series(option, "seed=2")
    for name in data.splits:
        assert all(map(torch.equal, data.splits[name].tensors, again.splits[name].tensors))
    x, y = next(iter(data.train_dataloader()))
    assert list(x.shape) == [32, *data.input_shape]
    assert (x.dtype, list(y.shape)) == (torch.float32, [32] if option == "direction" else [32, 1])
    rows = [{bytes(row.numpy()) for row in data.splits[name].table} for name in ("train", "val", "test")]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    assert torch.equal(
        make_series(option, "seed=1").train_dataloader().order(), data.train_dataloader().order()
    )
    assert not torch.equal(again.train_dataloader().order(), data.train_dataloader().order())


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
    assert [[len(y) for _, y in share] for share in shares] == [[4, 4, 1]] + [[3, 3, 2]] * 3
    trained = [Batches(numbered(33), 4, seed=1, rank=rank, world_size=4) for rank in range(4)]
    assert {len(share) for share in trained} == {2}
    assert len(torch.cat([share.order() for share in trained]).unique()) == 32


@pytest.mark.parametrize(("total", "size", "twice"), [(129, 64, 0), (5, 1, 1), (1, 4, 1), (8, 2, 0)])
def test_ranks_evaluate_as_many_batches(total: int, size: int, twice: int) -> None:
    shares = [Batches(numbered(total), size, rank=rank, world_size=2) for rank in range(2)]
    rows = [[y for _, y in share] for share in shares]
    assert len(rows[0]) == len(rows[1]) == len(shares[0]) == len(shares[1])
    assert len(torch.cat(rows[0] + rows[1])) == total + twice
    assert [share.repeated for share in shares] == [twice] * 2


def test_declaring_what_the_files_do_not_hold_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.num_classes: 9, but a label is 9"):
        make("digits", folder, "data.num_classes=9")
    with pytest.raises(ConfigError, match=r"data.input_shape: \[1, 8, 8\], but samples are \[1, 28, 28\]"):
        make("digits", folder, "data.input_shape=[1,8,8]")


@pytest.mark.parametrize("option", OPTIONS)
def test_what_a_run_has_learned_is_recalled_by_the_next(option: str, folder: Path) -> None:
    learned = json.loads(json.dumps(make(option, folder).fitted_state()))
    assert learned
    if "mean" in learned:
        learned["mean"] = [value + 1 for value in learned["mean"]]
    elif "class_names" in learned:
        learned["class_names"].reverse()
    else:
        learned["vocabulary"][1:3] = reversed(learned["vocabulary"][1:3])
    data = unread(option, folder)
    data.load_fitted_state(learned)
    data.prepare_data()
    data.setup("fit")
    assert data.fitted_state() == learned
