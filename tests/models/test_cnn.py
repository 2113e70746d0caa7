import pytest
import torch

from regente.models.cnn import CNN


def test_it_has_the_tutorials_number_of_parameters() -> None:
    model = CNN(input_shape=[1, 28, 28], num_classes=10, widths=[32, 64, 64], hidden=64)
    assert sum(p.numel() for p in model.parameters()) == 93_322


def test_it_starts_as_in_keras() -> None:
    model = CNN(input_shape=[1, 28, 28], num_classes=10, widths=[32, 64, 64], hidden=64)
    first, last = model.features[0], model.head[-1]
    assert first.weight.abs().max() <= (6 / (9 + 9 * 32)) ** 0.5  # Glorot uniform
    assert not last.bias.any()


def test_it_takes_other_images() -> None:
    model = CNN(input_shape=[3, 32, 40], num_classes=7, widths=[4, 4, 4], hidden=8)
    assert model(torch.zeros(2, 3, 32, 40)).shape == (2, 7)


def test_it_refuses_images_too_small_for_its_convolutions() -> None:
    with pytest.raises(ValueError, match="18x18"):
        CNN(input_shape=[1, 17, 28], num_classes=10, widths=[4, 4, 4], hidden=8)
