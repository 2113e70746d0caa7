"""Lightning's way to the files of `checkpoints`: written by a thread while the training goes on."""

from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy as shallow
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning_fabric.plugins import CheckpointIO
from torch import Tensor

from regente.jobs import checkpoint_files
from regente.jobs.checkpoint_loading import load

SHARE = 0.25  # of the memory that is free: what a copy for the background may take


class SafeSaving(CheckpointIO):
    """Saves one after the other, in the order they were asked for, removals among them; waits where it must.

    A disk that is full or refuses does not end the training: the file that was to be replaced stays, `trouble` says
    what happened, `warn` is called once. The first file is loaded again before the training goes on.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.trouble = ""  # of the last save, if it could not be written
        self.instead: dict[
            Path, Path
        ] = {}  # the older file that stays because a newer one could not be written
        self._failed: Path | None = None  # the last file that could not be written
        self._tested = False
        self._writer: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Copy a checkpoint, as plain types, and have it written to `path`.

        Raises:
            CheckpointError: when the first one holds what would not load again.
        """
        self.flush()
        path = Path(path)
        if not self._tested:
            self._write(_plain(checkpoint, copy=False), path)
            self._test(path)
        elif _size(checkpoint) > SHARE * psutil.virtual_memory().available:
            self._write(_plain(checkpoint, copy=False), path)
        else:
            self._submit(self._write, _plain(checkpoint, copy=True), path)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """A checkpoint; never more than plain data is read, wherever it comes from.

        Raises:
            CheckpointError: when it is missing, damaged or holds code.
        """
        self.flush()
        return load(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file once what is being saved is; it stays if that could not be written."""
        self._submit(self._remove, Path(path))

    def point_to(self, path: Path, pointer: Path) -> None:
        """Let `pointer` lead to a file once that is written."""

        def move() -> None:
            if path.exists():
                checkpoint_files.point_to(path, pointer)

        self._submit(move)

    def flush(self) -> None:
        """Wait until nothing is being written."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def teardown(self) -> None:
        self.flush()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    def kept(self, path: str) -> str:
        """The file that stands for `path`: itself, or the older one that stayed in its place; empty if neither is there."""
        self.flush()
        found = Path(path)
        while path and not found.is_file() and found in self.instead:
            found = self.instead[found]
        return str(found) if path and found.is_file() else ""

    def _submit(self, work: Callable[..., None], *args: Any) -> None:
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "saving")
        self._last = self._writer.submit(work, *args)

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        try:
            checkpoint_files.write(
                path, int(checkpoint.get("global_step", 0)), lambda file: torch.save(checkpoint, file)
            )
        except (OSError, RuntimeError) as error:
            cause = _os_error(error)
            if cause is None:
                raise
            first, self._failed = not self.trouble, path
            self.trouble = f"{path}: could not be written ({cause.strerror})"
            if first:
                self.warn(f"{self.trouble}; training goes on, what was saved before stays")
        else:
            self.trouble, self._failed = "", None

    def _test(self, path: Path) -> None:
        if self._failed is not None:
            return
        self._tested = True
        load(path)

    def _remove(self, path: Path) -> None:
        if self._failed is not None and path != self._failed:
            self.instead[self._failed] = path
            return
        while path in self.instead and not path.is_file():
            path = self.instead.pop(path)
        checkpoint_files.remove(path)


def _os_error(error: BaseException) -> OSError | None:
    """The refusal of a disk behind an error; torch wraps what a file says."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _plain(value: Any, *, copy: bool) -> Any:
    """The same with numbers for numpy's scalars, text for paths, values for enums; tensors on the CPU."""
    if isinstance(value, Tensor):
        value = value.detach()
        return value.clone() if copy and value.device.type == "cpu" else value.cpu()
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
    """Bytes of the tensors in it."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_size(each) for each in value.values())
    return sum(_size(each) for each in value) if isinstance(value, list | tuple) else 0
