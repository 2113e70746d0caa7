"""Classification networks of torchvision."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regente.config.discovery import suggest
from regente.data.core.seeding import seeded
from regente.errors import ConfigError, Problem
from regente.models.backbones import weight_files
from regente.models.backbones.backbone import Backbone, Preprocessing, before_dense, load_weights

HEADS = ("fc", "classifier", "head", "heads")  # the names of the classifier in networks of torchvision
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # auxiliary classifiers, used in training alone


class TorchvisionBackbone(Backbone):
    """A network of torchvision.models by name, cut before the first dense layer of its classifier.

    Earlier layers of the classifier stay, such as the last normalisation of ConvNeXt. `weights`: DEFAULT or another
    set of torchvision, a file, or None for initial weights of torchvision that depend on `seed`.
    """

    def __init__(self, name: str, weights: str | None, shape: Sequence[int], seed: int) -> None:
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            what = f"no such network; {suggest(name, known)}; also timm:NAME and run:RUN"
            raise ConfigError([Problem(f"model.backbone={name}", what)])
        self.name, self.weights, self.shape, self.seed = name, weights, shape, seed
        self.published: Any = None  # the published set of the weights, also where a file has its name
        if weights:
            self.published = _published(name, weights)
        if self.published is not None:
            chosen = self.published.transforms()
            self.preprocessing = Preprocessing(chosen.crop_size[0], list(chosen.mean), list(chosen.std))

    @cached_property
    def file(self) -> Path | None:
        """The file of the weights; a published one is downloaded now."""
        if not self.weights:
            return None
        if weight_files.is_file(self.weights):
            return Path(self.weights).expanduser()
        return weight_files.published(self.published.url, self.weights)

    @property
    def identity(self) -> dict[str, str]:
        if self.weights is None:
            weights = f"random {self.seed}"
        elif weight_files.is_file(self.weights):
            weights = weight_files.sha256_of(Path(self.weights).expanduser())
        else:  # the name has the start of its SHA-256; the file may be missing
            weights = Path(self.published.url).name
        return {"network": f"torchvision {self.name} {self._options()}", "weights": weights}

    def skeleton(self) -> nn.Module:
        return self._skeleton()[0]

    def build(self) -> nn.Module:
        if self.file is None:
            with seeded(torch.device("cpu"), self.seed):
                return self._network()[0]
        network, removed = self._skeleton()
        load_weights(network, weight_files.read(self.file), f"model.weights={self.file}", removed)
        return network

    def _skeleton(self) -> tuple[nn.Module, list[str]]:
        try:
            with torch.device("meta"):
                return self._network()
        except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors
            with seeded(torch.device("cpu"), 0):
                network, removed = self._network()
            return network.to("meta"), removed

    def _network(self) -> tuple[nn.Module, list[str]]:
        from torchvision.models import get_model

        network = get_model(self.name, weights=None, **self._options())
        removed = [f"{name}." for name in AUXILIARY if getattr(network, name, None) is not None]
        for name in removed:
            setattr(network, name[:-1], None)
        network.aux_logits = False
        head = next(name for name in HEADS if hasattr(network, name))
        kept = before_dense(getattr(network, head))
        setattr(network, head, kept)
        return network, [*removed, f"{head}."]

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.name.startswith("vit_"):  # their number of positions is that of the patches
            options["image_size"] = self.preprocessing.size or self.shape[-1]
        if self.name in ("googlenet", "inception_v3"):
            # the published weights take channels scaled as in TensorFlow
            options |= {"transform_input": self.published is not None, "init_weights": True}
        return options


def _published(name: str, weights: str) -> Any:
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    if weight_files.is_file(weights):
        return next((each for each in known if Path(each.url).name == Path(weights).name), None)
    if weights not in known.__members__:
        what = f"{name} has no such weights; {suggest(weights, list(known.__members__))}, DEFAULT, a file, or null"
        raise ConfigError([Problem(f"model.weights={weights}", what)])
    return known[weights]
