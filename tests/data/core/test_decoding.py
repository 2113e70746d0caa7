"""Pixels as they should be, from whatever a file holds."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regente.data.core.decoding import decode


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("RGB", (9, 7), (200, 100, 50)), "PNG"),
        (Image.new("RGBA", (9, 7), (200, 100, 50, 255)), "PNG"),
        (Image.new("RGB", (9, 7), (200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        (Image.new("RGB", (90, 70), (200, 100, 50)).convert("CMYK"), "JPEG"),
        (Image.new("RGB", (90, 70), (200, 100, 50)), "WEBP"),
    ],
)
def test_colours_survive_whatever_the_mode(image: Image.Image, kind: str) -> None:
    pixels = decode(encoded(image, kind), 5)
    assert (pixels.shape, pixels.dtype) == ((3, 5, 5), np.uint8)
    assert np.abs(pixels.mean((1, 2)) - [200, 100, 50]).max() < 4


@pytest.mark.parametrize(
    ("array", "level"), [(np.full((6, 6), 77, np.uint8), 77), (np.full((6, 6), 77 * 257, np.uint16), 77)]
)
def test_grey_is_the_same_in_three_channels_also_of_sixteen_bits(array: np.ndarray, level: int) -> None:
    assert (decode(encoded(Image.fromarray(array)), 4) == level).all()


def test_the_central_square_is_kept() -> None:
    array = np.zeros((10, 30, 3), np.uint8)
    array[:, 10:20] = 255
    assert (decode(encoded(Image.fromarray(array)), 10) == 255).all()
    half = decode(encoded(Image.fromarray(array.transpose(1, 0, 2).copy())), 5)
    assert (
        half[:, 1:-1] == 255
    ).all()  # as in resizing the whole and cropping then, the edge sees beyond itself


def test_a_photo_is_turned_upright() -> None:
    array = np.zeros((32, 32, 3), np.uint8)
    array[:, 16:] = 255  # the right half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: right is down
    pixels = decode(encoded(Image.fromarray(array), "JPEG", exif=exif, quality=95), 8)
    assert pixels[:, -2:].min() > 250
    assert pixels[:, :2].max() < 5


def test_a_large_photo_is_decoded_at_a_smaller_scale_with_almost_the_same_result() -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((1600, 1200), Image.Resampling.BICUBIC)
    whole = decode(encoded(photo), 32).astype(int)  # PNG has no smaller scale
    scaled = decode(encoded(photo, "JPEG", quality=95), 32).astype(int)
    assert np.abs(whole - scaled).mean() < 1.5
