"""The checkpoint files of a job: their names and order, whether they are damaged, what they hold.

`training/checkpoints` writes them. Torch is imported only to load one.
"""

import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from regente.errors import CheckpointError

RESUME_STATE = re.compile(r"step-(\d+)(-validation|-end)?\.ckpt")
STAGES = ("-validation", "", "-end")  # of the same step, in the order of time
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which programs save the weights
PARALLEL = "module."  # before each name, of DistributedDataParallel
COMPILED = re.compile(r"(?<![^.])_orig_mod\.")  # in names, of torch.compile
FOLDER_FLAG = 0x10  # in the attributes of a zip entry


def load(
    path: Path, map_location: Any = "cpu", *, mmap: bool = False, verified: bool = False
) -> dict[str, Any]:
    """The content of a checkpoint file, as plain data and tensors.

    `mmap`: tensors are read only when they are used, and their checksums are not looked at. `verified`: the caller has
    looked at them, with `damage`.

    Raises:
        CheckpointError: when it is missing, damaged, holds code, or is no checkpoint.
    """
    import torch

    try:
        with torch.serialization.safe_globals(array_types()):
            content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; put it back, or name another run") from error
    except Exception as error:  # torch has no single error for a damaged file
        if what := damage(path):
            raise CheckpointError(f"{path}: {what}; name another checkpoint or run") from error
        reason = " ".join(str(error).split())
        if code := re.search(r"(?:GLOBAL|class) ([\w.]+)", reason):
            what = f"refused, it holds code ({code[1]}); only plain types and tensors are loaded"
            raise CheckpointError(f"{path}: {what}") from error
        raise CheckpointError(f"{path}: not a checkpoint ({reason[:150]}); name another") from error
    # torch does not compare the checksums that it wrote
    if not (mmap or verified) and _is_archive(path) and (what := damage(path)):
        raise CheckpointError(f"{path}: {what}; name another checkpoint or run")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint, but a {type(content).__name__}; name another")
    return content


def array_types() -> list[Any]:
    """What arrays of numpy are made of in a file; one that holds objects is refused all the same."""
    import numpy as np

    made: Any = np.zeros(0).__reduce__()
    return [
        made[0],
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"},
    ]


def load_foreign(path: Path) -> dict[str, Any]:
    """The content of a file that any program wrote. What is neither plain nor a tensor is left empty; no code of it runs.

    Raises:
        CheckpointError: when it is missing, damaged, or no checkpoint.
    """
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # safetensors raises several kinds
            raise CheckpointError(f"{path}: cannot be read ({error}); name another file") from error
    names: list[str] = []
    with suppress(Exception):  # missing, damaged, or of an old form: `load` says which
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        known = {f"{each.__module__}.{each.__qualname__}" for each in array_types()}
        names = [name for name in found if name not in known]
    kinds: dict[str, type] = {}
    while True:
        absent = {name: _absent(kinds.get(name, object)) for name in names}
        with torch.serialization.safe_globals([(each, name) for name, each in absent.items()]):
            try:
                return load(path)
            except CheckpointError as error:
                # torch fills a dict or a list, but no class derived from them
                why = str(error.__cause__)
                kind = dict if "Can only SETITEM" in why else list
                name = next((name for name, each in absent.items() if f"{each}" in why), "")
                if name in kinds or not name:
                    raise
                kinds[name] = kind


def _absent(kind: type) -> type:
    """A class that stands for one of a file: made of anything, an empty object, or an empty dict or list instead of it."""

    def make(cls: type, *_: Any, **__: Any) -> Any:
        return object.__new__(cls) if kind is object else kind()

    nothing = lambda *_, **__: None  # noqa: E731
    made = type("Absent", (), {"__new__": make, "__init__": nothing, "__setstate__": nothing})
    made.__qualname__ = f"Absent{id(made)}"  # so that an error of torch tells which one
    return made


def weights_of(content: Any) -> dict[str, Any]:
    """The tensors by name in the content of a checkpoint, a bare state dict, or one that another program has wrapped."""
    import torch

    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    pairs = content.items() if isinstance(content, dict) else ()
    tensors = {str(key): value for key, value in pairs if isinstance(value, torch.Tensor)}
    if tensors and all(key.startswith(PARALLEL) for key in tensors):
        tensors = {key.removeprefix(PARALLEL): value for key, value in tensors.items()}
    return {COMPILED.sub("", key): value for key, value in tensors.items()}


def damage(path: Path) -> str:
    """What is wrong with a checkpoint file, empty if nothing is. Reads the whole file."""
    if not path.exists():
        return "no such checkpoint"
    if path.is_dir():
        return "a folder, not a checkpoint"
    try:
        if (size := path.stat().st_size) == 0:
            return "damaged: it is empty"
        return _damage_of_archive(path, size) if _is_archive(path) else "not a checkpoint"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive, which torch has written since 1.6."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _damage_of_archive(path: Path, size: int) -> str:
    """The same, by the CRC-32 that torch writes for each entry of the archive."""
    try:
        if not zipfile.is_zipfile(path):
            return f"damaged: cut off after {size:,} bytes"
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any(entry.filename.endswith("/data.pkl") for entry in entries):
                return "not a checkpoint"
            # torch reads no bytes for an entry that is marked as a folder: the tensor would hold anything
            marked = [entry.filename for entry in entries if entry.external_attr & FOLDER_FLAG]
            changed = archive.testzip() or next(iter(marked), None)
    except OSError:
        raise
    except Exception as error:  # zipfile has no single error for a damaged archive
        return f"damaged: {error}"
    return f"damaged: {changed} has changed" if changed else ""


def resume_states(folder: Path) -> list[Path]:
    """The states in a folder from which a run can be resumed, newest first."""
    found = [file for file in _files(folder) if RESUME_STATE.fullmatch(file.name)]
    return sorted(found, key=step_and_stage, reverse=True)


def step_and_stage(path: Path) -> tuple[int, int]:
    """The optimizer step of a state, and its stage in that step; older states compare as less."""
    match = RESUME_STATE.fullmatch(path.name)
    assert match is not None
    return int(match[1]), STAGES.index(match[2] or "")


def _files(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()


def newest_undamaged(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest undamaged state, and one line for each newer one that says what is wrong with it.

    Raises:
        CheckpointError: when there are states and all are damaged.
    """
    damaged: dict[Path, str] = {}
    for path in resume_states(folder):
        if not (what := damage(path)):
            return path, damaged
        damaged[path] = f"{path}: {what}"
    if damaged:
        last = f"{folder}: every state is damaged; regente fork RUN starts a new run from its best weights"
        raise CheckpointError("\n".join([*damaged.values(), last]))
    return None, {}
