"""scikit-learn's handwritten digits."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval

from regente.data.core.images import Images
from regente.data.core.sources import Split
from regente.data.core.splitting import SPLITS

NUM_VAL = NUM_TEST = 270  # 15 % each; 1,257 remain for training


class Digits(Images):
    """1,797 digits of 43 people, 8x8 with 17 grey levels, enlarged bilinearly to 28x28.

    x is uint8 [N, 1, 28, 28]. `digits`: these alone, as the classes 0, 1, ...; `per_class`: at most this many training
    images of each class. Split: 1,257 train, 270 val, 270 test, a permutation that depends on `split_seed` alone.
    Source: Alpaydin and Kaynak, 1998, UCI Optical Recognition of Handwritten Digits (test part), CC BY 4.0;
    the file is the one that scikit-learn ships.
    """

    def __init__(
        self,
        split_seed: Annotated[int, Ge(0)] = 0,
        digits: list[Annotated[int, Interval(ge=0, le=9)]] | None = None,
        per_class: Annotated[int, Ge(1)] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.split_seed, self.digits, self.per_class = split_seed, digits, per_class

    def read(self) -> dict[str, Split]:
        table = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)
        small = torch.from_numpy(table[:, :64].astype(np.float32)).view(-1, 1, 8, 8)
        large = F.interpolate(small, size=(28, 28), mode="bilinear", antialias=False)
        x = large.mul_(255 / 16).round_().to(torch.uint8)
        y = torch.from_numpy(table[:, 64].astype(np.int64))
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(self.split_seed))
        sizes = [len(y) - NUM_VAL - NUM_TEST, NUM_VAL, NUM_TEST]
        parts = zip(SPLITS, order.split(sizes), strict=True)
        splits = {name: Split(x[index], y[index]) for name, index in parts}
        if self.digits is not None:
            splits = {name: _only(split, self.digits) for name, split in splits.items()}
        if self.per_class is not None:
            splits["train"] = _first(splits["train"], self.per_class)
        return splits


def _only(split: Split, digits: list[int]) -> Split:
    """The samples of these digits; a label is the place of the digit in the list."""
    match = split.y.unsqueeze(1) == torch.tensor(digits)
    rows = match.any(1)
    return Split(split.x[rows], match[rows].int().argmax(1))


def _first(split: Split, number: int) -> Split:
    """The first samples of each class, in the order of the split."""
    rows = torch.cat([(split.y == label).nonzero().flatten()[:number] for label in split.y.unique()])
    return Split(*split.batch(rows.sort().values))


def _file() -> Path:
    # not sklearn.datasets.load_digits: importing scikit-learn takes longer than an epoch of training
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
