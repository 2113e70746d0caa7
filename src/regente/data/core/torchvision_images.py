"""Image data sets of torchvision, from their published files."""

import tarfile
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from filelock import FileLock
from torch import Tensor

from regente.data.core.cache import cache_dir
from regente.data.core.download import Published, download
from regente.data.core.images import Images
from regente.data.core.sources import Split
from regente.errors import DataError

# what torchvision and the archive readers raise for damaged files
DAMAGED = (
    RuntimeError,
    ValueError,
    TypeError,
    OSError,
    EOFError,
    AssertionError,
    zlib.error,
    tarfile.TarError,
)


class TorchvisionImages(Images):
    """Images of a training and a test file. A subclass names the files and reads the data set of torchvision.

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    `root` may be read-only: packed files are unpacked into the user's cache folder.
    """

    def __init__(self, root: str | None = None, num_val: Annotated[int, Ge(1)] = 5000, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser() if root else cache_dir() / "data"
        self.declared_root, self.num_val = root, num_val

    @abstractmethod
    def kind(self) -> Any:
        """The class of torchvision."""

    @abstractmethod
    def published(self) -> Sequence[Published]:
        """The files to download."""

    @abstractmethod
    def unpacked(self) -> Sequence[str]:
        """The files that torchvision reads, as paths under the root."""

    @abstractmethod
    def unpack(self, packed: Path, folder: Path) -> None:
        """Unpack a published file into a folder; each file gets its name when it is complete."""

    @abstractmethod
    def tensors(self, part: Any) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, C, H, W] and labels int64 [N] of torchvision's data set."""

    @property
    def source(self) -> str:
        return str(self.root)

    def prepare_data(self) -> None:
        """Unpack the files, and download the missing ones, once per machine."""
        files = self.published()
        if self.declared_root and not self.root.is_dir():
            raise DataError(
                f"data.root={self.declared_root}: no such directory; name the folder that holds "
                f"{Path(self.unpacked()[0]).parent}, or leave data.root out"
            )
        with FileLock(cache_dir() / "data.lock"):  # jobs of a sweep start at the same time
            if self._is_whole(self._home()):
                return
            if missing := [file for file in files if not (self.root / file.place).is_file()]:
                self._download(missing)
            self._unpack(files)

    def read(self) -> dict[str, Split]:
        root = self._home()
        parts = {}
        for name, train in (("train", True), ("test", False)):
            try:
                x, y = self.tensors(self.kind()(str(root), train=train))
            except DAMAGED as error:
                held = root / Path(self.unpacked()[0]).parent
                raise DataError(
                    f"{type(self).__name__} in {held} is damaged ({error}); delete that folder and start again"
                ) from error
            parts[name] = Split(x, y)
        x, y = parts["train"].tensors
        if self.num_val >= len(y):
            raise DataError(
                f"data.num_val={self.num_val}: nothing left to train on; below {len(y)} would be right"
            )
        cut = len(y) - self.num_val
        return {"train": Split(x[:cut], y[:cut]), "val": Split(x[cut:], y[cut:]), "test": parts["test"]}

    def _is_whole(self, root: Path) -> bool:
        return all((root / place).is_file() for place in self.unpacked())

    def _home(self) -> Path:
        """Where the unpacked files are or will be: the root, or a cache folder that belongs to these packed files."""
        packed = [self.root / file.place for file in self.published()]
        if self.declared_root is None or self._is_whole(self.root) or not all(p.is_file() for p in packed):
            return self.root
        known = "".join(
            f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns} " for path in packed
        )
        return cache_dir() / "unpacked" / blake2b(known.encode(), digest_size=8).hexdigest()

    def _download(self, missing: Sequence[Published]) -> None:
        try:
            for file in missing:
                download(file, self.root)
        except OSError as error:
            name, folder = type(self).__name__, (self.root / missing[0].place).parent
            names = ", ".join(Path(file.place).name for file in missing)
            raise DataError(
                f"{name} is not in {folder} and cannot be downloaded ({error}); put {names} there, or name the folder "
                f"that holds {Path(self.unpacked()[0]).parent}: data.root=PATH. Offline, data=digits needs no download"
            ) from error

    def _unpack(self, files: Sequence[Published]) -> None:
        home = self._home()
        for file in files:
            packed = self.root / file.place
            try:
                self.unpack(packed, (home / file.place).parent)
            except DAMAGED as error:
                if isinstance(error, OSError) and error.errno:
                    what = f"cannot be unpacked into {home}: {error}; free some space, or correct the permissions"
                else:
                    what = f"is damaged or incomplete ({error}); delete it, and it is downloaded again"
                raise DataError(f"{packed} {what}") from error
