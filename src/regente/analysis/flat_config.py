"""The frozen config of a run as settings by dotted name, read without OmegaConf: 200 configs in 30 milliseconds."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

LARGEST = 200_000  # characters of a config
MOST = 20_000  # values of a config: an alias of an alias of a list may stand for millions
MOST_NUMBER = 1e300
SEED = "seed"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
BLOCK = re.compile(r"^(?=[^\s#-])", re.MULTILINE)  # where a root key begins
REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
HOPS = 10  # of a reference to a reference


def config_with_references(text: str) -> tuple[dict[str, Any], frozenset[str]]:
    """The settings by dotted name, and the names of those whose value is that of another one.

    A list is a tuple; a plain reference is replaced by its value, unless that is the seed.

    Raises:
        ValueError: when the text is no YAML mapping, or too large.
    """
    if len(text) > LARGEST:
        raise ValueError(f"{len(text):,} characters, more than {LARGEST:,}")
    try:
        # configs of a sweep share most of their root keys, so each of these is parsed once
        blocks = [_block(block) for block in BLOCK.split(text) if block.strip()] or [_parsed(text)]
    except ValueError:
        blocks = [_parsed(text)]
    found = {key: value for block in blocks for key, value in block}
    config = {
        key: _followed(found, value) if isinstance(value, str) and value[:2] == "${" else value
        for key, value in found.items()
    }
    return config, frozenset(key for key, value in found.items() if config[key] is not value)


@lru_cache(maxsize=10_000)
def _block(text: str) -> tuple[tuple[str, Any], ...]:
    return _parsed(text)


def _parsed(text: str) -> tuple[tuple[str, Any], ...]:
    try:
        content = yaml.load(text, LOADER)
        if isinstance(content, dict):
            return tuple(_leaves(content, "", iter(range(MOST))))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"bad YAML: {error}") from error
    raise ValueError("no mapping")


def _leaves(node: Any, path: str, budget: Iterator[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}" if path else str(name), budget)
    else:
        yield path, _frozen(node, budget)


def _frozen(node: Any, budget: Iterator[int]) -> Any:
    """A value that can be hashed."""
    if next(budget, None) is None:
        raise ValueError(f"more than {MOST:,} values")
    if isinstance(node, dict):
        return tuple((str(name), _frozen(value, budget)) for name, value in node.items())
    if isinstance(node, list):
        return tuple(_frozen(each, budget) for each in node)
    if isinstance(node, int | float):
        return node if abs(node) <= MOST_NUMBER else str(node)  # no axis and no mean takes .nan and .inf
    return node if node is None or isinstance(node, str) else str(node)  # a date, a set


def _followed(found: dict[str, Any], value: Any) -> Any:
    for _ in range(HOPS):
        match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if match is None or match[1] == SEED or match[1] not in found:
            break
        value = found[match[1]]
    return value
