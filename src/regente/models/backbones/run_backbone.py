"""The model of a finished run as a backbone."""

from copy import deepcopy
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from regente.jobs.runs import Run, find
from regente.jobs.trust import read_config
from regente.models.backbones.backbone import Backbone, Preprocessing, cut_classifier
from regente.models.backbones.weight_files import sha256_of


class RunBackbone(Backbone):
    """The model of a run with its best weights, without its classifier; `name` is run:RUN."""

    def __init__(self, name: str) -> None:
        self.name = name
        data = read_config(self.run.job, Path.cwd(), ["data"])["data"]
        data |= self.run.fitted_state or {}  # a mean that the run computed
        shape = data.get("input_shape") or []
        if len(shape) == 3 and data.get("mean") and data.get("std"):
            self.preprocessing = Preprocessing(shape[-1], data["mean"], data["std"])

    @cached_property
    def run(self) -> Run:
        """The run of this name."""
        return find(self.name.removeprefix("run:"), Path.cwd())

    @property
    def identity(self) -> dict[str, str]:
        return {"network": f"run {self.run.job.digest}", "weights": sha256_of(self.run.checkpoint)}

    @cached_property
    def _network(self) -> nn.Module:
        from regente.models.weights import load_model

        with torch.random.fork_rng(devices=[]):  # for the initial weights, which are replaced
            return cut_classifier(load_model(self.run.job, self.run.checkpoint))

    def skeleton(self) -> nn.Module:
        return deepcopy(self._network).to("meta")

    def build(self) -> nn.Module:
        return deepcopy(self._network)  # fine-tuning must not change the next copy
