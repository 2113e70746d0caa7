"""An encoder of text under a new head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from regente.errors import CheckpointError, ConfigError
from regente.models.text_transfer import TextTransfer
from tests.conftest import Ended
from tests.tiny_bert import VOCABULARY, save_csv, save_tiny_bert, tiny_bert
from tests.training.test_fit import jobs

Run = Callable[..., Ended]
X = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 10, 3]], dtype=torch.int32)


def make(**words: Any) -> TextTransfer:
    given = {
        "backbone": str(tiny_bert()),
        "input_shape": [6],
        "vocab_size": len(VOCABULARY),
        "num_classes": 3,
    }
    model = TextTransfer(**{**given, **words})
    model.build_backbone()
    return model


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_are_those_that_transformers_gives(pooling: Any) -> None:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(tiny_bert()).eval()
    mask = X != 0
    with torch.no_grad():
        states = network(input_ids=X.long(), attention_mask=mask.long()).last_hidden_state
        features = make(pooling=pooling).eval().features(X)
    means = torch.stack([row[keep].mean(0) for row, keep in zip(states, mask, strict=True)])
    torch.testing.assert_close(features, states[:, 0] if pooling == "cls" else means)


def test_padding_changes_nothing() -> None:
    model = make().eval()
    with torch.no_grad():
        torch.testing.assert_close(model(X[:1]), model(X[:1, :4]))


def test_the_frozen_encoder_stays_as_it_is_to_the_bit() -> None:
    model = make(dropout=0.1).train()
    assert model.backbone is not None
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    buffers = {key: value.clone() for key, value in model.backbone.named_buffers()}
    assert not any(module.training for module in model.backbone.modules())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    assert all(torch.equal(value, buffers[key]) for key, value in model.backbone.named_buffers())
    assert all(p.grad is None for p in model.backbone.parameters())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 32 * 3 + 3


def test_weights_may_lie_beside_and_carry_the_names_of_a_model_with_a_head(tmp_path: Path) -> None:
    state = load_file(tiny_bert() / "model.safetensors")
    named = {
        f"bert.{key}".replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in state.items()
    }
    save_file(named | {"cls.predictions.bias": torch.zeros(3)}, tmp_path / "old.safetensors")
    own, other = make().eval(), make(weights=str(tmp_path / "old.safetensors")).eval()
    assert torch.equal(own.features(X), other.features(X))
    assert not torch.equal(own.features(X), make(weights=None).eval().features(X))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "other", [*VOCABULARY[:-1], "other"])
    with pytest.raises(ConfigError, match=r"its tokens are not those of data\.tokenizer"):
        make(tokenizer=str(folder))
    with pytest.raises(ConfigError, match=rf"the encoder has {len(VOCABULARY)} tokens"):
        make(vocab_size=30522)
    with pytest.raises(ConfigError, match="the encoder takes at most 64"):
        make(input_shape=[128])
    state = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in state.items() if "layer.1" not in key}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"not the weights of this network; tensors 16 missing"):
        make(backbone=str(folder))
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="damaged"):
        make(backbone=str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors in it; put it there"):
        make(backbone=str(folder))


def words(project: Path) -> list[str]:
    file = save_csv(project / "texts.csv")
    return [
        *("text_minilm", f"data.path={file}", f"data.tokenizer={tiny_bert()}", "data.max_tokens=16"),
        *(f"data.vocab_size={len(VOCABULARY)}", "optimizer.lr=1e-2", "trainer=cpu", "tracking=none"),
    ]


def test_texts_are_told_apart_and_the_bank_changes_nothing(regente: Run, project: Path) -> None:
    for bank in ([], [], ["model.feature_bank=null"]):
        ended = regente("train", *words(project), *bank)
        assert ended.code == 0, ended.err
    first, second, without = sorted(jobs(project), key=lambda job: (job / "config.yaml").stat().st_mtime)
    found = [json.loads((job / "result.json").read_text())["metrics"] for job in (first, second, without)]
    assert found[0] == found[1] == found[2]
    assert found[0]["test/acc"] > 0.7
    states = [
        torch.load(job / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for job in (first, without)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_encoder_that_is_not_there_ends_with_one_line(regente: Run, project: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(project / "hub")}
    ended = regente("train", *words(project)[:2], "tracking=none", env=offline)
    assert ended.code == 5
    assert len(ended.lines) == 1
    assert "=sentence-transformers/all-MiniLM-L6-v2: not in the cache of Hugging Face" in ended.err
    assert "name a folder that holds it" in ended.err
    ended = regente("train", *words(project)[:2], "data.tokenizer=/nope/bert", "tracking=none")
    assert ended.code == 5
    assert "/nope/bert: no such folder" in ended.err
