"""Transforms of torchvision as augmentation: each image has parameters of its own."""

from typing import Any

import pytest
import torch
from torchvision import transforms as v1
from torchvision.transforms import v2

from regente.data.augmentation.per_image import per_image
from regente.data.digits import Digits
from regente.errors import ConfigError


def digits(augment: object, seed: int = 0) -> Digits:
    facts = {"num_classes": 10, "input_shape": [1, 28, 28], "class_names": None, "mean": [0.0], "std": [1.0]}
    data = Digits(batch_size=64, augment=augment, seed=seed, **facts)  # type: ignore[arg-type]
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    "flip",
    [
        v2.RandomHorizontalFlip(0.5),
        torch.nn.Sequential(v2.RandomHorizontalFlip(0.5)),
        v2.Compose([v2.RandomHorizontalFlip()]),
    ],
)
def test_each_image_is_drawn_by_itself_and_by_the_seed(flip: object) -> None:
    index = torch.arange(64)
    plain = digits(None).model_inputs("train", index)
    flipped = digits(flip).augmented_inputs("train", index)
    changed = ((flipped - plain).abs() > 1e-3).flatten(1).any(1)  # scaled in another order
    assert 16 < int(changed.sum()) < 48
    assert torch.allclose(flipped[changed], plain[changed].flip(-1), atol=1e-5)
    assert torch.equal(digits(flip).augmented_inputs("train", index), flipped)
    assert not torch.equal(digits(flip, seed=1).augmented_inputs("train", index), flipped)


def test_what_changes_shapes_types_or_labels_is_refused() -> None:
    for transform in (v2.Resize(4), v2.ToDtype(torch.uint8)):
        with pytest.raises(ConfigError, match=f"data.augment: {type(transform).__name__} makes "):
            digits(transform).augmented_inputs("train", torch.arange(2))
    with pytest.raises(ConfigError, match=r"data.augment: MixUp changes labels too"):
        per_image(v2.MixUp(num_classes=10))
    assert per_image(torch.flip) is torch.flip


class Own(torch.nn.Module):
    """Holds a transform and is called for batches."""

    def __init__(self) -> None:
        super().__init__()
        self.flip = v2.RandomHorizontalFlip(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim == 4
        return self.flip(x)  # type: ignore[no-any-return]


def test_a_module_of_the_users_own_gets_batches_whatever_it_holds() -> None:
    x = torch.rand(3, 1, 4, 4)
    own: torch.nn.Module = Own()
    assert per_image(own) is own
    both = per_image(torch.nn.Sequential(v2.RandomVerticalFlip(1.0), own))
    assert both is not None
    assert torch.equal(both(x), x.flip(-1, -2))


@pytest.mark.parametrize("compose", [v1.Compose, v2.Compose])
def test_what_changes_labels_is_found_in_a_composed_transform(compose: Any) -> None:
    for inner in (v2.CutMix(num_classes=10), v1.Compose([v2.CutMix(num_classes=10)])):
        with pytest.raises(ConfigError, match=r"data.augment: CutMix changes labels too"):
            per_image(compose([v2.RandomHorizontalFlip(), inner]))
