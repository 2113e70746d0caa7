"""Features in place of images: whether they can be, which stored ones they are, and how they get there."""

import json
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regente.data.core.batches import Source, Split
from regente.data.core.cache import ABOUT, cache_dir, made_once, mark_used
from regente.data.core.decoding import progress
from regente.data.core.in_memory import InMemory
from regente.data.core.seeding import seeded
from regente.jobs.hardware import has_bfloat16
from regente.jobs.job import write_json
from regente.models.features.extraction import Extractor
from regente.models.features.store import Table, size_of
from regente.models.features.views import Views
from regente.models.transfer import Transfer

VERSION = 1  # of what is stored: a new one makes every bank anew
GROUP = {"cpu": 32}  # images that go through the backbone together
GROUP_ELSEWHERE = 256
DTYPES = {
    "32": torch.float32,
    "bf16": torch.bfloat16,
    "16": torch.float16,
}  # by the start of trainer.precision
LIMITS = ("limit_train_batches", "overfit_batches", "fast_dev_run")


def cache_features(model: nn.Module, data: Any, config: dict[str, Any], device: torch.device) -> list[str]:
    """Let the data give features to a frozen model, stored ones or computed now; what a user should know of it.

    A model that gets images after all has its backbone afterwards.

    Raises:
        DataError: when they cannot be written or read.
    """
    if not isinstance(model, Transfer):
        return []
    model.group = GROUP.get(device.type, GROUP_ELSEWHERE) if model.frozen else None
    notes = list(model.notes)
    if model.frozen and model.feature_bank is not None:
        notes += _cache_features(model, data, config, device)
    if not model.takes_features and model.backbone is None:
        model.complete()
    return notes


def _cache_features(model: Transfer, data: Any, config: dict[str, Any], device: torch.device) -> list[str]:
    assert model.feature_bank is not None
    if reason := obstacle(model, data, config):
        return [f"features are computed anew in each epoch: {reason}"]
    data.prepare_data()
    data.setup("fit")
    bank = Bank(model, data, config, device)
    if not bank.folder.is_dir() and config["trainer"].get("limit_train_batches") == 0:
        return []  # nothing is trained: each sample is looked at once
    if not bank.folder.is_dir() and (reason := _too_few_steps(data, config["trainer"])):
        return [f"features are computed as they are needed and not kept: {reason}"]
    slow = bank.extractor.computed == torch.bfloat16 and device.type == "cpu" and not has_bfloat16()
    notes = (
        ["this CPU only emulates bfloat16; model.feature_bank.precision=32 is several times faster"]
        if slow
        else []
    )
    notes.append(bank.fill())
    data.use_features(bank.open())
    model.takes_features, model.drop_features, model.backbone = True, partial(data.use_features, None), None
    return notes


def obstacle(model: Transfer, data: Any, config: dict[str, Any]) -> str:
    """Why features cannot stand for images."""
    assert model.feature_bank is not None
    if not isinstance(data, InMemory):
        return f"{type(data).__name__} does not say which sample is which; a regente.data.InMemory does"
    if getattr(data, "augment", None) is not None and model.feature_bank.views is None:
        return "augmentation changes the images; model.feature_bank.views=4 would keep four views of each"
    precision = str(config["trainer"].get("precision"))
    if model.feature_bank.precision == "auto" and precision.startswith("64"):
        return f"trainer.precision={precision}; model.feature_bank.precision=32 would keep them in 32 bits"
    return ""


def _too_few_steps(data: InMemory, trainer: dict[str, Any]) -> str:
    """What keeps training from seeing every sample."""
    for key in LIMITS:
        if trainer.get(key) not in (None, 1.0, 0, False) or (
            key == "limit_train_batches" and trainer.get(key) == 1
        ):
            return f"trainer.{key}={trainer[key]}"
    steps = trainer.get("max_steps") or -1
    return f"trainer.max_steps={steps}" if 0 < steps * data.batch_size < len(data.splits["train"]) else ""


class Bank:
    """The stored features of a data set under a backbone, in a folder that is named by all that they depend on."""

    def __init__(self, model: Transfer, data: InMemory, config: dict[str, Any], device: torch.device) -> None:
        assert model.feature_bank is not None
        self.model, self.data = model, data
        self.augment = getattr(data, "augment", None)
        self.views = (model.feature_bank.views or 1) if self.augment is not None else 1
        asked = str(model.feature_bank.precision)
        precision = str(config["trainer"].get("precision") or 32) if asked == "auto" else asked
        computed = DTYPES[precision.partition("-")[0]]
        self.extractor = Extractor(model, device, computed, None if asked == "auto" else computed)
        self.about: dict[str, Any] = {
            "version": VERSION,
            "backbone": model.origin.name,
            **model.origin.identity,
            "width": model.width,
            "data": {key: value for key, value in data.identity().items() if key != "source"},
            "preprocessing": [
                getattr(data, "mean", None),
                getattr(data, "std", None),
                vars(model.origin.preprocessing),
            ],
            "precision": [str(computed), asked == "auto", torch.get_float32_matmul_precision()],
            "device": device.type,
            "group": model.group,
            "torch": torch.__version__,
            "augment": [config["data"]["augment"], data.seed, self.views]
            if self.augment is not None
            else None,
        }
        key = blake2b(json.dumps(self.about, sort_keys=True).encode(), digest_size=12).hexdigest()
        self.folder = cache_dir() / "features" / key
        self.made = False  # by this process

    def fill(self) -> str:
        """Compute what is not stored yet; says what has been done."""
        what = self._what()
        if self.folder.is_dir():
            mark_used(self.folder)
            return f"{what} from {self.folder}"
        started = time.perf_counter()
        made_once(self.folder, self._make, resumable=True)
        if not self.made:
            return f"{what} from {self.folder}, computed by another process just now"
        seconds, size = time.perf_counter() - started, size_of(self.folder) / 1e6
        return f"{what} computed in {seconds:.1f} s; later runs take them from {self.folder}, {size:,.1f} MB that may be deleted"

    def _what(self) -> str:
        number = sum(len(split) for split in self.data.splits.values())
        return f"features of {self.model.origin.name} for {number:,} samples"

    def open(self) -> dict[str, Source]:
        """The splits, with features for inputs."""
        facts = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        dtype, found = getattr(torch, facts["dtype"]), dict[str, Source]()
        for name, split in self.data.splits.items():
            x, y = self._table(self.folder, name, dtype).open(), split.tensors[-1]
            many = self._views_of(name)
            found[name] = Views(x.view(many, len(split), -1), y) if many > 1 else Split(x, y)
        return found

    def _table(self, folder: Path, name: str, dtype: torch.dtype) -> Table:
        rows = len(self.data.splits[name]) * self._views_of(name)
        return Table(folder, name, (rows, self.model.width), dtype)

    def _views_of(self, name: str) -> int:
        return self.views if name == "train" else 1

    def _make(self, draft: Path) -> None:
        if self.model.backbone is None:
            self.model.complete()
        assert self.model.backbone is not None
        self.model.eval()
        self.model.backbone.to(self.extractor.device)
        (draft / ABOUT).write_text(
            f"{self._what()} of {self.data.source}", encoding="utf-8", errors="replace"
        )
        dtype = self.extractor.dtype
        tables = {name: self._table(draft, name, dtype) for name in self.data.splits}
        total = sum(table.shape[0] for table in tables.values())
        with progress() as line:
            task = line.add_task(f"features of {self.model.origin.name}", total=total)
            line.advance(task, sum(table.rows() for table in tables.values()))
            for name, table in tables.items():
                blocks = partial(self.extractor.blocks, self._inputs(name), table.shape[0])
                table.fill(blocks, partial(line.advance, task))
        self.model.train()
        self.made = True
        write_json(draft / "about.json", {**self.about, "dtype": str(dtype).removeprefix("torch.")})

    def _inputs(self, name: str) -> Callable[[Tensor], Tensor]:
        """Row numbers -> inputs of the backbone; of training images with augmentation, view after view."""
        split = self.data.splits[name]
        augment = self.augment if name == "train" else None
        if augment is None:
            return lambda index: self.data.inputs(split.take(index)[0])

        def view(index: Tensor) -> Tensor:
            x = split.take(index % len(split))[0]
            with torch.no_grad(), seeded(x.device, self.data.seed, int(index[0])):
                return self.data.inputs(augment(x.float().div_(255)))

        return view
