"""Decodes image files on all cores into one file of uint8 pixels."""

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from errno import ENOSPC
from functools import partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regente.data.core.parallel import map_in_order, progress_bar
from regente.jobs.found_files import open_regular, parse_json, read_text
from regente.jobs.job import fits

VERSION = 1  # of the result of `decode`: a new one decodes every cache anew
CHUNK = 32  # images that a thread decodes at a time
DIGEST = 16  # bytes of the digest of a file
NOT_READ = "not read: "  # begins the reason where the file system refused, which may change


@dataclass
class Decoded:
    """Pixels [N, 3, side, side] uint8 and digests of the files that could be read, and the reasons for the others."""

    pixels: Any
    digests: list[bytes] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)


def decode(encoded: bytes, side: int, mode: str = "RGB") -> np.ndarray:
    """An encoded image as uint8 [3, side, side]: upright, RGB, the central square resized with antialias.

    With mode L it is grey, [1, side, side]. A large JPEG is decoded at an eighth to a half of its size, but at least
    at twice `side`: ten times faster at 8 megapixels, with a mean difference of 0.2 of 255 grey levels.
    """
    from PIL import Image, ImageOps

    image: Image.Image = Image.open(BytesIO(encoded))
    image.draft(None, (2 * side, 2 * side))
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits per pixel: PIL's own conversion clips at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode != mode:
        image = image.convert(mode)
    width, height = image.size
    square = min(width, height)
    left, top = (width - square) / 2, (height - square) / 2
    box = (left, top, left + square, top + square)
    small = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.array(np.atleast_3d(np.asarray(small)).transpose(2, 0, 1), order="C")


def decode_files(root: Path, paths: Sequence[str], side: int, folder: Path) -> None:
    """Decode files into `folder`: `pixels`, `digests` and `bad.json`, the fields of Decoded.

    In threads: PIL releases the interpreter lock while it decodes and resizes.

    Raises:
        OSError: when there is no room.
    """
    need, free = len(paths) * 3 * side**2, shutil.disk_usage(folder).free
    if need > free:
        raise OSError(ENOSPC, f"{need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    with (
        (folder / "pixels").open("wb") as pixels,
        (folder / "digests").open("wb") as digests,
        progress_bar() as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # PIL's, about odd metadata of files that it reads
        task = bar.add_task(f"decoding {root}", total=len(paths))
        bad: dict[str, str] = {}
        chunks = (paths[at : at + CHUNK] for at in range(0, len(paths), CHUNK))
        for chunk in map_in_order(partial(_decode_chunk, root, side), chunks):
            pixels.write(chunk.pixels)
            digests.writelines(chunk.digests)
            bad |= chunk.bad
            bar.advance(task, len(chunk.digests) + len(chunk.bad))
    (folder / "bad.json").write_text(json.dumps(bad), encoding="utf-8")


def read_decoded(folder: Path, side: int) -> Decoded:
    """The result of `decode_files`; the pixels are memory-mapped, and writing to them does not change the file.

    Raises:
        ValueError: when the sizes of the files contradict each other.
    """
    with open_regular(folder / "digests") as file:
        whole = file.read()
    digests = [whole[at : at + DIGEST] for at in range(0, len(whole), DIGEST)]
    total = len(digests) * 3 * side * side
    if (folder / "pixels").stat().st_size != total:
        raise ValueError(f"{folder / 'pixels'} has not {total:,} bytes")
    flat = torch.empty(0, dtype=torch.uint8)
    if total:  # torch maps no empty file
        flat = torch.from_file(str(folder / "pixels"), shared=False, size=total, dtype=torch.uint8)
    bad = parse_json(read_text(folder / "bad.json"))
    if not fits(dict[str, str], bad):
        raise ValueError(f"{folder / 'bad.json'} holds no reasons")
    return Decoded(flat.view(-1, 3, side, side), digests, bad)


def _decode_chunk(root: Path, side: int, paths: Sequence[str]) -> Decoded:
    images, chunk = [], Decoded(b"")
    for path in paths:
        try:
            encoded = (root / path).read_bytes()
        except OSError as error:
            chunk.bad[path] = NOT_READ + (error.strerror or type(error).__name__).lower()
            continue
        try:
            images.append(decode(encoded, side))
        except MemoryError:
            raise
        except Exception as error:  # PIL's plugins raise OSError, SyntaxError, struct.error, ...
            chunk.bad[path] = reason_of(error, empty=encoded == b"")
        else:
            chunk.digests.append(blake2b(encoded, digest_size=DIGEST).digest())
    chunk.pixels = b"".join(image.data for image in images)
    return chunk


def reason_of(error: Exception, *, empty: bool = False) -> str:
    """Why an image cannot be read, in a few words."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "empty" if empty else "not an image"
    return "truncated" if "truncated" in str(error).lower() else str(error) or type(error).__name__
