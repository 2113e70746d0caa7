"""The contract that each augmentation inherits, and when it is applied."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from regente.config.check import check
from regente.config.compose import compose
from regente.config.discovery import groups
from regente.config.interpolation import resolve
from regente.data.core.images import Images
from regente.data.core.seeding import seeded

OPTIONS = [option for option in groups()["augment"] if option != "none"]
CPU = torch.device("cpu")


def make(option: str) -> Callable[[Tensor], Tensor]:
    augment = instantiate(resolve(compose("digits_cnn", [f"augment={option}"]).node)["data"]["augment"])
    assert callable(augment)
    return augment


def images(number: int, channels: int, height: int = 24, width: int = 32) -> Tensor:
    return torch.rand(number, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_dtype_and_range_stay_and_what_came_in_is_left_as_it_is(option: str, channels: int) -> None:
    x = images(64, channels)
    kept = x.clone()
    got = make(option)(x)
    assert (got.shape, got.dtype) == (x.shape, x.dtype)
    assert got.min() >= 0
    assert got.max() <= 1
    assert torch.equal(x, kept)
    assert not torch.equal(got, x)


@pytest.mark.parametrize("option", OPTIONS)
def test_equal_images_of_a_batch_become_different(option: str) -> None:
    got = make(option)(images(1, 3).expand(64, -1, -1, -1).contiguous())
    assert len({bytes(image.numpy()) for image in got}) > 16


@pytest.mark.parametrize("option", OPTIONS)
def test_a_key_says_what_is_drawn_and_the_global_state_stays(option: str) -> None:
    augment, x = make(option), images(32, 3)
    before = torch.get_rng_state()

    def under(*key: int) -> Tensor:
        with seeded(CPU, *key):
            return augment(x)

    first = under(0, 1, 2, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # whatever else was drawn in between
    assert torch.equal(under(0, 1, 2, 0), first)
    for other in ((1, 1, 2, 0), (0, 2, 2, 0), (0, 1, 3, 0), (0, 1, 2, 1)):  # seed, epoch, batch, rank
        assert not torch.equal(under(*other), first)


def test_none_adds_nothing_to_the_data() -> None:
    assert "augment" not in resolve(compose("digits_cnn", []).node)["data"]


def test_settings_of_an_augmentation_are_checked_like_those_of_any_part() -> None:
    def problems(*words: str) -> list[str]:
        return [str(problem) for problem in check(resolve(compose("digits_cnn", words).node))]

    assert problems("augment=flip_crop", "data.augment.pading=3") == [
        "data.augment.pading: no such setting; did you mean data.augment.padding?"
    ]
    assert problems("augment=rand_augment", "data.augment.magnitude=31") == [
        "data.augment.magnitude=31: needs a number >= 0 and <= 30"
    ]
    assert problems("augment.padding=3") == [
        "augment: a group whose settings are elsewhere in the config; --cfg job shows where"
    ]


class Watch(LightningModule):
    """Keeps the batches that arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["train"].append(batch[0])
        return self.weight * batch[0].mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["val"].append(batch[0])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["test"].append(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(data: Images, **arguments: Any) -> dict[str, list[Tensor]]:
    module = Watch()
    quiet = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=3, num_sanity_val_steps=0, **quiet, **arguments
    )
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    return module.seen


def digits(*words: str) -> Images:
    data = instantiate(
        resolve(compose("digits_cnn", ["data.batch_size=32", *words]).node)["data"], _convert_="all"
    )
    assert isinstance(data, Images)
    return data


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.14, 2026-11
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_training_alone_is_augmented_as_a_function_of_seed_epoch_and_batch() -> None:
    plain = run(digits())
    data = digits("augment=flip_crop")
    seen, again = run(data), run(digits("augment=flip_crop"), accumulate_grad_batches=2)
    assert all(map(torch.equal, seen["train"], again["train"]))
    assert all(map(torch.equal, seen["val"] + seen["test"], plain["val"] + plain["test"]))
    order = data.train_dataloader()
    for epoch in range(2):
        order.set_epoch(epoch)
        for number, (x, _) in zip(range(3), order, strict=False):
            got = seen["train"].pop(0)
            assert not torch.equal(got, data.normalise(x))
            with seeded(CPU, data.seed, epoch, number, 0):
                assert data.augment is not None
                assert torch.equal(got, data.normalise(data.augment(x / 255)))
