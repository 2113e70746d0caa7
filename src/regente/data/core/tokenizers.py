"""Tokenizers of the Hugging Face hub: where their files are, and texts as token ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regente.errors import CheckpointError, MachineError

FILES = ["*.json", "*.txt", "*.safetensors", "pytorch_model*.bin"]


def checkpoint_folder(setting: str, name: str) -> Path:
    """The folder of that name, or of a model of the hub, which is downloaded unless it is in the cache of the hub.

    Raises:
        MachineError: when transformers is not installed.
        CheckpointError: when it is missing and cannot be downloaded.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        what = "transformers is not installed; pip install transformers"
        raise MachineError(f"{setting}={name}: {what}") from error
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith(("/", "~", ".")) or name.count("/") > 1:
        raise CheckpointError(
            f"{setting}={name}: no such folder; name an existing one, or a model of the hub"
        )
    try:
        found = Path(snapshot_download(name, allow_patterns=FILES, local_files_only=True))
        if (found / "config.json").is_file():
            return found
    except Exception:  # not in the cache: the library of the hub raises many kinds of errors
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=FILES, etag_timeout=10))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(
            f"{setting}={name}: not in the cache of Hugging Face and cannot be downloaded ({reason}); "
            f"download it on a machine with a network (hf download {name}), or name a folder that holds it"
        ) from error


def open_tokenizer(setting: str, name: str) -> Any:
    """The tokenizer of a model; the model itself is not loaded.

    Raises:
        CheckpointError: when it is missing or cannot be read.
    """
    folder = checkpoint_folder(setting, name)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except Exception as error:  # for a damaged file each reader raises errors of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        what = f"no tokenizer that can be read ({reason}); vocab.txt or tokenizer.json should be in {folder}"
        raise CheckpointError(f"{setting}={name}: {what}") from error


def token_ids(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """The token ids of each text, cut to `max_tokens`, with the tokens that begin and end a text."""
    found: list[list[int]] = tokenizer(
        list(texts), truncation=True, max_length=max_tokens, return_attention_mask=False
    )["input_ids"]
    return found
