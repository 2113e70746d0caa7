"""Folders of made images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Photos = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Photos:
    """`photos("train/cat", 5)` makes five images of 20x16 random pixels in that folder of `tmp_path/photos`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)

    def make(folder: str, number: int, kind: str = "png") -> Path:
        target = tmp_path / "photos" / folder
        target.mkdir(parents=True, exist_ok=True)
        for count in range(number):
            pixels = draw.integers(0, 256, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target / f"{count}.{kind}")
        return tmp_path / "photos"

    return make
