"""Lightning's interface to checkpoint files: a thread writes them while the training goes on."""

import pickle
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from copy import copy as shallow
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning_fabric.plugins import CheckpointIO
from omegaconf import OmegaConf
from torch import Tensor

from regente.errors import CheckpointError, first_of
from regente.jobs.checkpoint_files import array_types, load
from regente.training.checkpoints.writing import link, write

HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")  # keys of Lightning in a checkpoint
PLAIN = (bool, int, float, str, bytes, Tensor, np.generic, Enum, Path, torch.dtype)
MEMORY_SHARE = 0.25  # of the free memory, which the copy for the background thread may take


class SafeSaving(CheckpointIO):
    """Saves, removes and links files in the order of the calls, in one background thread.

    A full disk does not end the training: the file that would have been replaced stays, `failure` describes what
    happened, and `warn` is called once. The first file is loaded again before the training goes on.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.failure = ""  # why the last file could not be written, if it could not
        self.more: Callable[[], dict[str, Any]] = (
            dict  # what each checkpoint holds beside what Lightning puts in
        )
        self.verified: Path | None = None  # a file whose checksums were compared by the caller
        self.older: dict[Path, Path] = {}  # for a file that could not be written: the older one that stays
        self._failed: Path | None = None  # the last file that could not be written
        self._tested = self._objects_noted = False
        self._noted: set[str] = set()  # callbacks whose state is left out
        self._writer: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Copy a checkpoint, as plain types, and have it written to `path`.

        Raises:
            CheckpointError: when this one (the first) cannot be loaded again, or the one before holds what cannot be saved.
        """
        self.flush()
        path, checkpoint = Path(path), {**checkpoint, **self.more()}
        for name in _leave_out_states(checkpoint):
            if name not in self._noted:
                what = "has a state that is no plain data; checkpoints leave it out, so a resumed run starts it anew"
                self.warn(f"callback {name} {what}")
            self._noted.add(name)
        if objects := [name for key in HYPERPARAMETERS for name in _leave_out_objects(checkpoint, key)]:
            if not self._objects_noted:
                what = "are objects; checkpoints leave them out, and the config makes them again"
                self.warn(f"hyperparameters {first_of(objects)} {what}")
            self._objects_noted = True
        if not self._tested:
            self._write(_plain(checkpoint, copy=False), path)
            if self._failed is None:
                load(path)
                self._tested = True
        elif _size(checkpoint) > MEMORY_SHARE * psutil.virtual_memory().available:
            self._write(_plain(checkpoint, copy=False), path)
        else:
            self._submit(self._write, _plain(checkpoint, copy=True), path)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of a checkpoint; only plain data is ever loaded, whatever `weights_only` is.

        Raises:
            CheckpointError: when it is missing, damaged or holds code.
        """
        self.flush()
        return load(Path(path), map_location or "cpu", verified=Path(path) == self.verified)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file after the saves before it; it stays if the newer file could not be written."""
        self._submit(self._remove, Path(path))

    def link(self, path: Path, to: Path) -> None:
        """Make `path` a link to a file once that is written."""
        self._submit(lambda: link(path, to) if to.exists() else None)

    def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            CheckpointError: when one of the saves holds what cannot be saved.
        """
        pending, self._pending = self._pending, []
        wait(pending)
        for each in pending:
            each.result()

    def teardown(self) -> None:
        try:
            self.flush()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None

    def kept(self, path: str) -> str:
        """`path` or, if it could not be written, the older file that stayed; empty if neither exists."""
        self.flush()
        found = Path(path)
        while path and not found.is_file() and found in self.older:
            found = self.older[found]
        return str(found) if path and found.is_file() else ""

    def _submit(self, work: Callable[..., None], *args: Any) -> None:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "saving")
        self._pending.append(self._writer.submit(work, *args))

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        try:
            write(path, lambda file: torch.save(checkpoint, file))
        except (pickle.PicklingError, AttributeError, TypeError) as error:  # pickle raises all three
            what = f"cannot be saved ({error}); a state holds plain types and tensors"
            raise CheckpointError(f"{path}: {what}") from error
        except (OSError, RuntimeError) as error:
            refusal = _os_error(error)
            if refusal is None:
                raise
            first, self._failed = not self.failure, path
            self.failure = f"{path}: could not be written ({refusal.strerror})"
            if first:
                self.warn(f"{self.failure}; training goes on, older checkpoints stay")
        else:
            self.failure, self._failed = "", None

    def _remove(self, path: Path) -> None:
        if self._failed is not None and path != self._failed:
            self.older[self._failed] = path
            return
        while path in self.older and not path.is_file():
            path = self.older.pop(path)
        path.unlink(missing_ok=True)


def _leave_out_objects(checkpoint: dict[str, Any], key: str) -> list[str]:
    """Keep the plain ones of a module's `save_hyperparameters()`; returns the names of the others."""
    given = checkpoint.get(key)
    if OmegaConf.is_config(given):
        given = OmegaConf.to_container(given, resolve=True)
        checkpoint.pop("hparams_type", None)  # its class, which no checkpoint may name
    if not isinstance(given, Mapping):
        return []
    plain = {str(name): plain_value(value) for name, value in given.items()}
    checkpoint[key] = {name: value for name, value in plain.items() if value is not NOT_PLAIN}
    return [name for name, value in plain.items() if value is NOT_PLAIN]


def _leave_out_states(checkpoint: dict[str, Any]) -> list[str]:
    """Keep the states of callbacks that can be loaded again; returns the names of the others."""
    states = checkpoint.get("callbacks") or {}
    left_out = [
        name for name, state in states.items() if plain_value(state) is NOT_PLAIN and not _loads(state)
    ]
    if left_out:
        checkpoint["callbacks"] = {name: state for name, state in states.items() if name not in left_out}
    return left_out


def _loads(state: Any) -> bool:
    file = BytesIO()
    try:
        torch.save(state, file)
        with torch.serialization.safe_globals(array_types()):
            torch.load(BytesIO(file.getvalue()), weights_only=True)
    except Exception:  # pickle raises what an object's own methods raise
        return False
    return True


NOT_PLAIN = object()  # in place of what a checkpoint cannot hold


def plain_value(value: Any) -> Any:
    """The value as plain types, or NOT_PLAIN."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, np.ndarray):
        return NOT_PLAIN if value.dtype.hasobject else value
    if isinstance(value, Mapping):
        items: Any = {key: plain_value(each) for key, each in value.items()}
        return NOT_PLAIN if any(each is NOT_PLAIN for each in items.values()) else items
    if type(value) in (list, tuple, set, deque):
        items = [plain_value(each) for each in value]
        kind = list if isinstance(value, deque) else type(value)
        return NOT_PLAIN if any(each is NOT_PLAIN for each in items) else kind(items)
    return NOT_PLAIN


def _os_error(error: BaseException) -> OSError | None:
    """The OSError behind an error: torch wraps those of a file in its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _plain(value: Any, *, copy: bool) -> Any:
    """The same with plain numbers for numpy's, text for paths, values for enums; tensors on the CPU."""
    if isinstance(value, Tensor):
        value = value.detach()
        return value.clone() if copy and value.device.type == "cpu" else value.cpu()
    if isinstance(value, np.ndarray):
        return value.copy() if copy else value
    if isinstance(value, np.generic | Enum):
        return value.item() if isinstance(value, np.generic) else value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, MutableMapping):
        same = shallow(value)  # an OrderedDict of weights has attributes too
        for key in value:
            same[key] = _plain(value[key], copy=copy)
        return same
    if type(value) in (list, tuple, set):
        return type(value)(_plain(each, copy=copy) for each in value)
    return value


def _size(value: Any) -> int:
    """The size of the tensors in it, in bytes."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_size(each) for each in value.values())
    return sum(_size(each) for each in value) if isinstance(value, list | tuple) else 0
