"""Stored features in place of images: whether they can be used, where they are stored, and how they are computed."""

import json
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regente.data.core.cache import (
    DESCRIPTION,
    build_once,
    cache_dir,
    folder_size,
    is_complete,
    mark_used,
    require_undamaged,
)
from regente.data.core.parallel import progress_bar
from regente.data.core.sources import Source, Split
from regente.data.protocols import SupportsFeatures
from regente.errors import DataError
from regente.jobs.hardware import has_bfloat16
from regente.jobs.job import read_json, write_json
from regente.models.backbone_with_head import BackboneWithHead
from regente.models.feature_bank import FeatureBank
from regente.models.features.augmented_views import AugmentedViews
from regente.models.features.extraction import Extractor
from regente.models.features.feature_file import FeatureFile

VERSION = 2  # of the stored form: a new one computes every bank anew
BACKBONE_BATCH_SIZE = {"cpu": 32}
BACKBONE_BATCH_SIZE_GPU = 256
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}  # by start of trainer.precision
# settings under which training sees a part of the samples, and their values that mean all of them
LIMITS = {"limit_train_batches": (1.0, 0, 0.0), "overfit_batches": (0, 0.0), "fast_dev_run": (False, 0)}


def cache_features(model: nn.Module, data: Any, config: dict[str, Any], device: torch.device) -> list[str]:
    """Decide whether a frozen model trains on stored features; if so, compute them and hand them to the data.

    Afterwards the model has its backbone unless features are used. Weights of a trained backbone that are loaded
    later make the data give images again. Returns lines for the user.

    Raises:
        DataError: when features cannot be written or read.
    """
    if not isinstance(model, BackboneWithHead):
        return []
    features, notes = None, list(model.notes)
    if model.frozen:
        # also without stored features, so that the results are equal to the bit
        model.backbone_batch_size = BACKBONE_BATCH_SIZE.get(device.type, BACKBONE_BATCH_SIZE_GPU)
        if model.feature_bank is not None:
            features, more = _features(model, model.feature_bank, data, config, device)
            notes += more
    if features is None:
        model.build_backbone()
    else:
        model.backbone = None  # frees its memory
        data.use_features(features)
        model.register_load_state_dict_post_hook(partial(_leave_features_if_trained, data))  # type: ignore[no-untyped-call]
    return notes


def _leave_features_if_trained(data: SupportsFeatures, model: Any, keys: Any) -> None:
    if model.trained:
        data.use_features(None)


def _features(
    model: BackboneWithHead, settings: FeatureBank, data: Any, config: dict[str, Any], device: torch.device
) -> tuple[dict[str, Source] | None, list[str]]:
    """The features of each split, None where images are used, and lines for the user."""
    if reason := obstacle(settings, data, config["trainer"]):
        return None, [f"features are computed anew in each epoch: {reason}"]
    data.prepare_data()
    data.setup("fit")
    bank = Bank(model, settings, data, config, device)
    if not is_complete(bank.folder):
        if config["trainer"].get("limit_train_batches") == 0:  # nothing is trained: one pass over each split
            return None, []
        if reason := _part_of_the_samples(data, config["trainer"]):
            return None, [f"features are computed when needed and not stored: {reason}"]
    notes = []
    if bank.extractor.computed == torch.bfloat16 and device.type == "cpu" and not has_bfloat16():
        notes.append(
            "this CPU only emulates bfloat16; model.feature_bank.precision=32 is several times faster"
        )
    notes.append(bank.compute())
    return bank.open(), notes


def obstacle(settings: FeatureBank, data: Any, trainer: dict[str, Any]) -> str:
    """Why features cannot replace images."""
    if not isinstance(data, SupportsFeatures):
        return f"{type(data).__name__} cannot give features; see regente.data.protocols.SupportsFeatures"
    if data.augment is not None and settings.views is None:
        return "augmentation changes the images; model.feature_bank.views=4 would store four views of each"
    precision = str(trainer.get("precision"))
    if settings.precision == "auto" and precision.startswith("64"):
        return f"trainer.precision={precision}; model.feature_bank.precision=32 would store 32 bits"
    return ""


def _part_of_the_samples(data: SupportsFeatures, trainer: dict[str, Any]) -> str:
    """The setting under which training does not see every sample."""
    for key, harmless in LIMITS.items():
        given = trainer.get(key)
        # a whole number of batches is no share: 1 is not 1.0
        if given is not None and not any(given == each and type(given) is type(each) for each in harmless):
            return f"trainer.{key}={given}"
    steps = trainer.get("max_steps") or -1
    return f"trainer.max_steps={steps}" if 0 < steps * data.batch_size < len(data.splits["train"]) else ""


class Bank:
    """The stored features of a data set, in a folder whose name is a hash of everything that they depend on."""

    def __init__(
        self,
        model: BackboneWithHead,
        settings: FeatureBank,
        data: SupportsFeatures,
        config: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.model, self.data = model, data
        augmented = data.augment is not None
        self.views = (settings.views or 1) if augmented else 1
        auto = settings.precision == "auto"
        precision = str(config["trainer"].get("precision") or 32) if auto else str(settings.precision)
        computed = DTYPES[precision.partition("-")[0]]
        self.extractor = Extractor(model, device, computed, None if auto else computed)
        self.key: dict[str, Any] = {
            "version": VERSION,
            "backbone": model.origin.name,
            **model.origin.identity,
            "width": model.width,
            "data": {key: value for key, value in data.identity().items() if key != "source"},
            "preprocessing": [data.fitted_state(), vars(model.origin.preprocessing)],
            "precision": [str(computed), auto, torch.get_float32_matmul_precision()],
            "device": device.type,
            "backbone_batch_size": model.backbone_batch_size,
            "torch": torch.__version__,
            "augment": [config["data"]["augment"], data.seed, self.views] if augmented else None,
        }
        digest = blake2b(json.dumps(self.key, sort_keys=True).encode(), digest_size=12).hexdigest()
        self.folder = cache_dir() / "features" / digest
        self.computed_here = False  # by this process

    def compute(self) -> str:
        """Compute what is not stored yet; returns a line that says what was done."""
        number = sum(len(split) for split in self.data.splits.values())
        what = f"features of {self.model.origin.name} for {number:,} samples"
        if is_complete(self.folder):
            mark_used(self.folder)
            return f"{what} from {self.folder}"
        started = time.perf_counter()
        build_once(self.folder, partial(self._compute, f"{what} of {self.data.source}"), resumable=True)
        if not self.computed_here:
            return f"{what} from {self.folder}, computed by another process just now"
        seconds, size = time.perf_counter() - started, folder_size(self.folder) / 1e6
        return f"{what} computed in {seconds:.1f} s; later runs read {self.folder}, {size:,.1f} MB that may be deleted"

    def open(self) -> dict[str, Source]:
        """The splits, with features for inputs."""
        require_undamaged(self.folder)
        name = read_json(self.folder / "about.json").get("dtype")
        if (dtype := next((each for each in DTYPES.values() if str(each) == f"torch.{name}"), None)) is None:
            what = f"damaged; regente cache clear {self.folder.name}"
            raise DataError(f"{self.folder / 'about.json'}: {what}")
        found: dict[str, Source] = {}
        for name, split in self.data.splits.items():
            x, y = self._file(self.folder, name, dtype).read(), split.tensors[-1]
            views = self._views_of(name)
            found[name] = AugmentedViews(x.view(views, len(split), -1), y) if views > 1 else Split(x, y)
        return found

    def _file(self, folder: Path, name: str, dtype: torch.dtype) -> FeatureFile:
        rows = len(self.data.splits[name]) * self._views_of(name)
        return FeatureFile(folder, name, (rows, self.model.width), dtype)

    def _views_of(self, name: str) -> int:
        return self.views if name == "train" else 1

    def _compute(self, description: str, draft: Path) -> None:
        self.model.build_backbone().to(self.extractor.device)
        self.model.eval()
        (draft / DESCRIPTION).write_text(description, encoding="utf-8", errors="replace")
        dtype = self.extractor.stored_dtype(self._inputs("train"))
        files = {name: self._file(draft, name, dtype) for name in self.data.splits}
        with progress_bar() as bar:
            task = bar.add_task(
                f"features of {self.model.origin.name}", total=sum(file.shape[0] for file in files.values())
            )
            bar.advance(task, sum(file.num_written() for file in files.values()))
            for name, file in files.items():
                blocks = partial(self.extractor.blocks, self._inputs(name), file.shape[0])
                file.write(blocks, partial(bar.advance, task))
        self.model.train()
        self.computed_here = True
        write_json(draft / "about.json", {**self.key, "dtype": str(dtype).removeprefix("torch.")})

    def _inputs(self, name: str) -> Callable[[Tensor], Tensor]:
        """Row numbers -> inputs of the model; rows of augmented training images are view after view."""
        if name == "train" and self.data.augment is not None:
            return partial(self.data.augmented_inputs, name)
        return partial(self.data.model_inputs, name)
