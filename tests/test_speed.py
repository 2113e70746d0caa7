"""What is faster is the same."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from regente.models.cnn import CNN
from regente.speed import channels_last, fused

ADAM = {"_target_": "torch.optim.Adam", "lr": 1e-3}


@pytest.mark.parametrize(
    ("optimizer", "trainer", "wanted"),
    [
        (ADAM, {"precision": 32}, True),
        (ADAM, {"precision": "16-mixed", "gradient_clip_val": 1.0}, False),
        (ADAM, {"precision": "16-mixed"}, True),
        (ADAM, {"precision": 32, "gradient_clip_val": 1.0}, True),
        (ADAM | {"foreach": True}, {}, False),
        ({"_target_": "own.Optimizer"}, {}, False),
    ],
)
def test_an_optimizer_is_fused_where_nothing_speaks_against_it(
    optimizer: dict[str, Any], trainer: dict[str, Any], wanted: bool
) -> None:
    assert fused(optimizer, trainer).get("fused", False) is wanted


def test_what_the_user_says_of_fused_stands() -> None:
    assert fused(ADAM | {"fused": False}, {})["fused"] is False


def test_channels_last_and_fused_train_to_the_same_weights_but_for_rounding() -> None:
    x, y = torch.randn(8, 1, 28, 28), torch.arange(8)
    trained = []
    for fast in (False, True):
        torch.manual_seed(0)
        model: nn.Module = CNN([1, 28, 28], 10, [32, 64, 64], 64)
        model = channels_last(model) if fast else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fast)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        trained.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*trained, rtol=1e-4, atol=1e-5)


def test_relu_behind_the_pooling_gives_the_same_gradients_to_the_bit() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16).mul_(4).round_()  # with ties
    gradients = []
    for layers in ([nn.ReLU(), nn.MaxPool2d(2)], [nn.MaxPool2d(2), nn.ReLU()]):
        inputs = x.clone().requires_grad_()
        nn.Sequential(*layers)(inputs).pow(2).sum().backward()
        gradients.append(inputs.grad)
    assert torch.equal(gradients[0], gradients[1])
