"""Text encoders of the BERT family, from Hugging Face's transformers."""

import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regente.data.core.seeding import seeded
from regente.data.core.tokenizers import checkpoint_folder
from regente.errors import CheckpointError, ConfigError, Problem
from regente.models.backbones import weight_files
from regente.models.backbones.backbone import Backbone, load_weights

Pooling = Literal["mean", "cls"]
# parts of a checkpoint that the encoder does not have: heads, the pooler, a buffer of old versions
IGNORED = (
    *("pooler.", "cls.", "lm_head.", "qa_outputs.", "classifier.", "embeddings.position_ids"),
    *("pre_classifier.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector."),  # DistilBERT
    *("predictions.", "sop_classifier."),  # ALBERT
    *("discriminator_predictions.", "generator_predictions."),  # ELECTRA
)


class Encoder(nn.Module):
    """Token ids [B, T], padded with `pad` -> features [B, D]: the mean state of the tokens, or that of the first."""

    def __init__(self, network: nn.Module, pad: int, pooling: Pooling) -> None:
        super().__init__()
        self.network, self.pad, self.pooling = network, pad, pooling

    def forward(self, x: Tensor) -> Tensor:
        ids = x.long()
        mask = ids != self.pad
        states: Tensor = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


class TextBackbone(Backbone):
    """A model by its name on the Hugging Face hub, or by a folder with config.json and weights.

    `weights`: DEFAULT for its own, a file, or None for random ones that depend on `seed`.
    """

    def __init__(self, name: str, weights: str | None, pooling: Pooling, seed: int) -> None:
        self.name, self.weights, self.pooling, self.seed = name, weights, pooling, seed
        self.folder = checkpoint_folder("model.backbone", name)
        if weights not in (None, "DEFAULT") and not weight_files.is_file(str(weights)):
            what = f"{name} takes DEFAULT, a file, or null"
            raise ConfigError([Problem(f"model.weights={weights}", what)])
        try:
            self.settings: dict[str, Any] = json.loads(
                (self.folder / "config.json").read_text(encoding="utf-8")
            )
        except (OSError, ValueError) as error:
            what = f"no readable config.json ({error}); name a folder that save_pretrained wrote"
            raise CheckpointError(f"model.backbone={name}: {what}") from error

    @property
    def vocab_size(self) -> int:
        """The number of its tokens."""
        return int(self.settings.get("vocab_size", 0))

    @property
    def max_tokens(self) -> int:
        """The length of the longest text that it takes."""
        return int(self.settings.get("max_position_embeddings", 512))

    @cached_property
    def files(self) -> list[Path]:
        """The files of the weights.

        Raises:
            CheckpointError: when there are none.
        """
        if self.weights is None:
            return []
        if self.weights != "DEFAULT":
            return [Path(self.weights).expanduser()]
        for pattern in ("model*.safetensors", "pytorch_model*.bin"):
            if found := sorted(self.folder.glob(pattern)):
                return found
        what = (
            "no model.safetensors in it; put it there, or give model.weights=FILE, or null for random weights"
        )
        raise CheckpointError(f"model.backbone={self.folder}: {what}")

    @property
    def identity(self) -> dict[str, str]:
        import transformers

        weights = " ".join(map(weight_files.sha256_of, self.files)) or f"random {self.seed}"
        network = f"transformers {transformers.__version__} {json.dumps(self.settings, sort_keys=True)}"
        return {"network": f"{network} {self.pooling}", "weights": weights}

    def width(self, shape: Collection[int]) -> int:
        return int(self.settings.get("hidden_size") or self.settings["dim"])

    def skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self._encoder()

    def build(self) -> nn.Module:
        with seeded(torch.device("cpu"), self.seed):
            encoder = self._encoder()
        if self.files:
            state: dict[str, Tensor] = {}
            for file in self.files:
                state |= weight_files.read(file)
            load_weights(
                encoder.network,
                self._plain(state, encoder.network),
                f"model.weights={self.files[0]}",
                IGNORED,
            )
        return encoder

    def _encoder(self) -> Encoder:
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
            network = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        except (ValueError, KeyError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            what = f"transformers cannot build an encoder from it ({reason}); name one of the BERT family"
            raise ConfigError([Problem(f"model.backbone={self.name}", what)]) from error
        if hasattr(network, "pooler"):
            network.pooler = None  # Encoder pools itself
        return Encoder(network, int(getattr(config, "pad_token_id", None) or 0), self.pooling)

    def _plain(self, state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """The weights under the keys of the bare encoder, without the prefix of a model with a head, in float32."""
        prefix = f"{getattr(network, 'base_model_prefix', '')}."
        renamed = {key.removeprefix(prefix): value for key, value in state.items()}
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            renamed = {key.replace(old, new): value for key, value in renamed.items()}
        return {key: value.float() if value.is_floating_point() else value for key, value in renamed.items()}
