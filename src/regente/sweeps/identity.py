"""The identity of a job: the hash of what it computes, independent of where and how it runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regente.config.compose import parse
from regente.config.signatures.modules import Module, TargetNotFound, Unreadable, top_module
from regente.config.trusted_names import is_installed

VERSION = version("regente")
IRRELEVANT = ("hydra", "tracking", "loggers", "sweep")  # where and how a job runs
PACKAGE = Path(__file__).parents[1]
LENGTH = 12  # hex digits: two of a million jobs get the same one by chance once in 500 sweeps


class Identities:
    """Hashes jobs; the source files of each target are read once."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def of(self, node: DictConfig) -> str:
        """The identity of a composed job. References stay unresolved, since they may stand for times and paths."""
        plain: Any = OmegaConf.to_container(node, resolve=False)
        content = {key: value for key, value in plain.items() if key not in IRRELEVANT}
        code = {target: self._source(target) for target in sorted(set(targets(content)))}
        whole = json.dumps([content, VERSION, code], sort_keys=True, default=str)
        return sha256(whole.encode()).hexdigest()[:LENGTH]

    def _source(self, target: str) -> str:
        if target not in self.sources:
            self.sources[target] = digest(users_files(target))
        return self.sources[target]


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a config."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def users_files(target: str) -> list[Path]:
    """The user's own source files that a dotted name needs: its module's, and all that these import."""
    found: dict[Path, None] = {}
    left = [target]
    while left:
        for module in _modules(left.pop()):
            path = Path(module.file)
            if path in found or not is_users(path):
                continue
            found[path] = None
            try:
                contents = module.contents
            except (Unreadable, SyntaxError):
                continue
            left += [
                meaning for all_ in contents.names.values() for meaning in all_ if isinstance(meaning, str)
            ]
            left += contents.stars
    return sorted(found)


def _modules(name: str) -> Iterator[Module]:
    """The modules along a dotted name, packages included."""
    first, *rest = name.split(".")
    try:
        module: Module | None = top_module(first)
    except (TargetNotFound, Unreadable):
        return
    while module is not None:
        yield module
        module = module.submodule(rest.pop(0)) if rest else None


def is_users(path: Path) -> bool:
    """Whether a source is neither Regente's nor an installed library's."""
    if path.suffix != ".py" or not path.is_file():
        return False
    path = path.resolve()
    return not (path.is_relative_to(PACKAGE) or is_installed(path))


def digest(files: Sequence[Path]) -> str:
    """The hash of the contents of files; empty for none."""
    return sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest() if files else ""


def sweep_identity(experiment: str, overrides: Sequence[str], params: Mapping[str, Any] | None) -> str:
    """The identity of a sweep: its experiment, its fixed overrides and the keys with several values, not these values.

    The same command line finds its sweep again, and so does one with more values. How jobs are run makes no difference.
    """
    fixed, swept = [], set(params or {})
    for override in parse(overrides):
        key = override.get_key_element().lstrip("+")
        if key.startswith(("hydra.", "hydra/", "sweep.")):
            continue
        if override.is_sweep_override():
            swept.add(key)
        else:
            fixed.append(str(override.input_line).lstrip("+"))
    whole = json.dumps([experiment, sorted(fixed), sorted(swept)])
    return sha256(whole.encode()).hexdigest()[:8]
