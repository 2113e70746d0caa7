"""Networks of timm."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regente.data.core.seeding import seeded
from regente.errors import CheckpointError, ConfigError, MachineError, Problem
from regente.models.backbones import weight_files
from regente.models.backbones.backbone import Backbone, Preprocessing, load_weights


class TimmBackbone(Backbone):
    """A network of timm by name, without its classifier; the features are those that timm pools.

    `weights`: DEFAULT for those of timm, a file, or None for random ones that depend on `seed`.
    """

    def __init__(self, name: str, weights: str | None, shape: Sequence[int], seed: int) -> None:
        try:
            import timm
        except ImportError as error:
            raise MachineError(f"model.backbone={name}: timm is not installed; pip install timm") from error
        self.name, self.weights, self.shape, self.seed = name, weights, shape, seed
        self.own = name.removeprefix("timm:")
        if not timm.is_model(self.own):
            close = get_close_matches(self.own, timm.list_models(), n=5)
            what = f"timm has no such network; close: {', '.join(close) or 'none, see timm.list_models()'}"
            raise ConfigError([Problem(f"model.backbone={name}", what)])
        if weights not in (None, "DEFAULT") and not weight_files.is_file(str(weights)):
            what = f"{name} takes DEFAULT, a file, or null; timm:NAME.TAG names other weights of timm"
            raise ConfigError([Problem(f"model.weights={weights}", what)])
        if weights == "DEFAULT":
            facts: Any = timm.get_pretrained_cfg(self.own)
            if facts is None or not facts.has_weights:
                what = f"timm has no weights of {self.own}; give a file, or null for random ones"
                raise ConfigError([Problem("model.weights=DEFAULT", what)])
            self.preprocessing = Preprocessing(facts.input_size[-1], list(facts.mean), list(facts.std))

    @cached_property
    def file(self) -> Path | None:
        """The file of the weights, where the config names one."""
        named = self.weights and self.weights != "DEFAULT"
        return Path(str(self.weights)).expanduser() if named else None

    @property
    def identity(self) -> dict[str, str]:
        import timm

        weights = f"random {self.seed}" if self.file is None else weight_files.sha256_of(self.file)
        if self.weights == "DEFAULT":
            facts: Any = timm.get_pretrained_cfg(self.own)
            weights = f"{facts.hf_hub_id or facts.url} {facts.tag}"
        return {"network": f"timm {timm.__version__} {self.own}", "weights": weights}

    def skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self._network()

    def build(self) -> nn.Module:
        with seeded(torch.device("cpu"), self.seed):
            network = self._network(pretrained=self.weights == "DEFAULT")
        if self.file is not None:
            head = str(getattr(network, "pretrained_cfg", {}).get("classifier") or "head")
            load_weights(network, weight_files.read(self.file), f"model.weights={self.file}", [f"{head}."])
        return network

    def _network(self, *, pretrained: bool = False) -> nn.Module:
        import timm

        try:
            network: nn.Module = timm.create_model(self.own, pretrained=pretrained, num_classes=0)
        except Exception as error:
            if not pretrained:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise CheckpointError(
                f"model.weights=DEFAULT: the weights of {self.own} are not in timm's cache and cannot be downloaded "
                f"({reason}); give model.weights=FILE, or null for random weights"
            ) from error
        return network
