"""MNIST."""

import gzip
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any
from urllib.error import URLError

from annotated_types import Ge

from regente.data.batches import Split
from regente.data.cache import cache_dir
from regente.data.images import Images
from regente.errors import DataError

FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


class MNIST(Images):
    """60,000 + 10,000 handwritten digits of 28x28 (LeCun et al., 1998).

    Split: the last `num_val` images of the training file validate, the others train; the test file tests.
    Licence: CC BY-SA 3.0; torchvision checks the MD5 of what it downloads.
    """

    def __init__(self, root: str | None = None, num_val: Annotated[int, Ge(1)] = 5000, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser() if root else cache_dir() / "data"
        self.declared_root, self.num_val = root, num_val

    @property
    def source(self) -> str:
        return str(self.root)

    def prepare_data(self) -> None:
        """Download, or unpack what is there as .gz, once per machine."""
        if self.declared_root and not self.root.is_dir():
            raise DataError(
                f"data.root={self.declared_root}: no such directory; create it, or leave data.root out"
            )
        raw = self.root / "MNIST" / "raw"
        if all((raw / name).is_file() for name in FILES):
            return None
        if all((raw / f"{name}.gz").is_file() for name in FILES):
            return _unpack(raw, cache_dir() / "data" / "MNIST" / "raw")
        from torchvision.datasets import MNIST as Source

        try:
            Source(str(self.root), download=True)
        except (RuntimeError, URLError, OSError) as error:
            names = ", ".join(f"{name}.gz" for name in FILES)
            raise DataError(
                f"MNIST is not in {raw} and cannot be downloaded ({error}); put {names} there, or name the folder "
                "that holds MNIST/raw: data.root=PATH. Offline, data=digits needs no download"
            ) from error

    def read(self) -> dict[str, Split]:
        from torchvision.datasets import MNIST as Source

        unpacked = (self.root / "MNIST" / "raw" / FILES[0]).is_file()
        root = str(self.root if unpacked else cache_dir() / "data")
        parts = {}
        for name, train in (("train", True), ("test", False)):
            try:
                source = Source(root, train=train)
            except (RuntimeError, ValueError, OSError, AssertionError) as error:
                raise DataError(
                    f"MNIST in {root} is damaged ({error}); delete the folder MNIST and start again"
                ) from error
            parts[name] = Split(source.data.unsqueeze(1), source.targets)
        x, y = parts["train"].tensors
        if self.num_val >= len(y):
            raise DataError(
                f"data.num_val={self.num_val}: nothing left to train on; below {len(y)} would be right"
            )
        cut = len(y) - self.num_val
        return {"train": Split(x[:cut], y[:cut]), "val": Split(x[cut:], y[cut:]), "test": parts["test"]}


def _unpack(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (target / name).is_file():
            continue
        with (
            tempfile.NamedTemporaryFile(dir=target, delete=False) as out,
            gzip.open(source / f"{name}.gz") as file,
        ):
            shutil.copyfileobj(file, out)
        Path(out.name).replace(target / name)
