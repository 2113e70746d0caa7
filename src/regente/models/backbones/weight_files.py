"""Files of weights: download, hash, and reading without running code in them."""

import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from filelock import FileLock
from torch import Tensor

from regente.data.core.cache import cache_dir
from regente.data.core.download import atomic_write
from regente.errors import CheckpointError
from regente.jobs.checkpoint_files import damage, weights_of


def is_file(weights: str) -> bool:
    """Whether `model.weights` names a file and not a published set."""
    return "/" in weights or weights.endswith((".pth", ".pt", ".bin", ".safetensors", ".ckpt"))


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, computed once for each path, size and modification time.

    Raises:
        CheckpointError: when the file is missing.
    """
    try:
        facts = file.stat()
    except OSError as error:
        raise CheckpointError(
            f"model.weights={file}: no such file; name an existing one, or give model.weights=null"
        ) from error
    known = f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
    note = cache_dir() / "digests" / hashlib.blake2b(known.encode(), digest_size=12).hexdigest()
    if note.is_file() and len(digest := note.read_text()) == 64:
        return digest
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    with atomic_write(note) as part:
        part.write_text(digest)
    return digest


def published(url: str, weights: str) -> Path:
    """torchvision's file of this address, which is downloaded if it is missing; its name has the start of its SHA-256.

    Raises:
        CheckpointError: when it is damaged, or missing and cannot be downloaded.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    wanted = wanted_hash(file)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            _download(url, file, wanted, weights)
    if not sha256_of(file).startswith(wanted):
        raise CheckpointError(
            f"{file}: damaged, its SHA-256 does not start with {wanted}; delete it and start again"
        )
    return file


def wanted_hash(file: Path) -> str:
    """The start of the SHA-256 in the name of a published file."""
    return match[1] if (match := re.search(r"-([a-f0-9]{8,})\.", file.name)) else ""


def _download(url: str, file: Path, wanted: str, weights: str) -> None:
    if file.is_file():  # another process downloaded it
        return
    try:
        torch.hub.download_url_to_file(url, str(file), wanted or None)
    except (OSError, RuntimeError) as error:  # RuntimeError: another hash
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"model.weights={weights}: {file.name} is not in {file.parent} and cannot be downloaded ({reason}); "
            f"put it there (from {url}), or give model.weights=FILE, model.backbone=run:RUN for a network of your "
            "own, or model.weights=null for random weights"
        ) from error


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a file that torch saved, plain or wrapped by another program.

    Raises:
        CheckpointError: when it is damaged, holds code, or holds no tensors.
    """
    sha256_of(file)  # raises if the file is missing
    try:
        content: Any = _load(file)
    except Exception as error:  # for a damaged file torch and safetensors raise many kinds of errors
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            what = "refused, it holds more than tensors; save the state_dict alone"
        else:
            what = "damaged; replace it"
        raise CheckpointError(f"{file}: {what} ({reason})") from error
    if not (tensors := weights_of(content)):
        raise CheckpointError(
            f"{file}: no weights in it; a state_dict, saved with torch.save, would be right"
        )
    return tensors


def _load(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    with file.open("rb") as start:
        zipped = start.read(2) == b"PK"
    if zipped and (what := damage(file)):  # torch does not compare the checksums that it wrote
        raise ValueError(what)
    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
