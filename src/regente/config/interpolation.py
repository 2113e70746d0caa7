"""A composed config as plain data, its references followed. Needs OmegaConf alone, without Hydra."""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from regente.config.discovery import groups, options
from regente.errors import ConfigError, Problem


def resolve(config: DictConfig | str, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The config, or the YAML text of one, as plain data; with `parts`, only these of its root keys.

    Raises:
        ConfigError: with every value that is missing and every reference that leads nowhere.
    """
    node = _parsed(config) if isinstance(config, str) else config
    problems: list[Problem] = []
    if parts is not None:
        plain: Any = {
            key: _plain(_value(node, key, key, problems), key, problems)
            for key in map(str, node)
            if key in parts
        }
    else:
        plain = _plain(node, "", problems)
    if problems:
        raise ConfigError(problems)
    assert isinstance(plain, dict)
    return plain


@lru_cache(4)
def _parsed(text: str) -> DictConfig:
    """A frozen config; parsing takes longer than resolving, and a job asks several times."""
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    return node


def _plain(node: Any, path: str, problems: list[Problem]) -> Any:
    if isinstance(node, DictConfig):
        keys: list[Any] = list(node.keys())
        join: Callable[[Any], str] = lambda key: f"{path}.{key}" if path else str(key)  # noqa: E731
    elif isinstance(node, ListConfig):
        keys = list(range(len(node)))
        join = lambda key: f"{path}[{key}]"  # noqa: E731
    else:
        return node
    values = {key: _plain(_value(node, key, join(key), problems), join(key), problems) for key in keys}
    return values if isinstance(node, DictConfig) else list(values.values())


def _value(node: DictConfig | ListConfig, key: Any, path: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(node, key):
        known = f"; {options(path)}" if path in groups() else ""
        problems.append(Problem(path, f"has no value; give it one: {path}=...{known}"))
        return None
    try:
        return node[key]
    except InterpolationToMissingValueError:
        return None  # the place that has no value is a problem already
    except OmegaConfBaseException as error:
        text = node._get_node(key)._value()  # type: ignore[union-attr]
        found = re.search(r"Interpolation key '(.*?)' not found", str(error))
        reason = f"{found[1]} does not exist" if found else str(error).splitlines()[0]
        problems.append(Problem(path, f"refers to {text}, but {reason}"))
        return None


def to_yaml(node: Any, *, resolve: bool = False) -> str:
    """A config as YAML text; with `resolve` the references are replaced by what they point to."""
    return OmegaConf.to_yaml(node, resolve=resolve)
