"""The contract that each model in regente.models inherits."""

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn

from regente.config.compose import compose
from regente.config.discovery import groups
from regente.config.interpolation import resolve
from tests.tiny_bert import VOCABULARY, tiny_bert

pytestmark = pytest.mark.slow  # not in `make quick`

OPTIONS = [option for option in groups()["model"] if option != "none"]
FITTING = {
    "gru": "series_direction",
    "lstm": "text_lstm",
    "text_transfer": "text_minilm",
}  # an experiment whose data the model takes

# What makes it small, and lets it start offline
SMALL = {
    "transfer": lambda: ["model.backbone=squeezenet1_1", "model.weights=null", "model.hidden=[256]"],
    "text_transfer": lambda: [
        *("data.path=texts.csv", "data.num_classes=10", "data.max_tokens=24", "model.hidden=[256]"),
        *(f"data.tokenizer={tiny_bert()}", f"data.vocab_size={len(VOCABULARY)}"),
    ],
}


@cache
def config(option: str) -> dict[str, Any]:
    small = SMALL.get(option, list)()
    return resolve(compose(FITTING.get(option, "digits_cnn"), [f"model={option}", *small]).node)


def classes(option: str) -> int:
    return int(config(option)["data"]["num_classes"])


def make(option: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = instantiate(config(option)["model"], _convert_="all")
    assert isinstance(model, nn.Module)
    return model


def batch(option: str, size: int = 16) -> tuple[Tensor, Tensor]:
    key = torch.Generator().manual_seed(1)
    data = config(option)["data"]
    shape = (size, *data["input_shape"])
    y = torch.randint(data["num_classes"], (size,), generator=key)
    if "vocab_size" in data:
        return torch.randint(data["vocab_size"], shape, generator=key), y
    return torch.randn(shape, generator=key), y


def test_each_option_has_a_file_of_its_name() -> None:
    spec = find_spec("regente.models")
    assert spec is not None and spec.submodule_search_locations
    files = {path.stem for path in Path(spec.submodule_search_locations[0]).glob("*.py")} - {"__init__"}
    assert set(OPTIONS) <= files


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_have_a_row_per_example_and_a_column_per_class(option: str) -> None:
    logits = make(option)(batch(option)[0])
    assert logits.shape == (16, classes(option))
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("option", OPTIONS)
def test_the_first_loss_is_that_of_guessing(option: str) -> None:
    x, y = batch(option, 256)
    loss = F.cross_entropy(make(option)(x), y).item()
    assert abs(loss - math.log(classes(option))) < 0.35


@pytest.mark.parametrize("option", OPTIONS)
def test_an_examples_output_does_not_depend_on_the_others(option: str) -> None:
    model, (x, _) = make(option).eval(), batch(option)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[3:4], model(x[3:4]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", OPTIONS)
def test_it_overfits_one_small_batch(option: str) -> None:
    model, (x, y) = make(option), batch(option)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("option", OPTIONS)
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(option: str) -> None:
    x, _ = batch(option)
    a, b, other = (make(option, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_state_dict_brings_the_model_back(option: str) -> None:
    model, twin, (x, _) = make(option).eval(), make(option, seed=1).eval(), batch(option)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model(x), twin(x))
