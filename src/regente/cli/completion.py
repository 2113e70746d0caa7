"""What Tab offers after `regente train` and `regente check`."""

import json
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from regente.config.compose import compose
from regente.config.discovery import DEFAULT_EXPERIMENT, experiment_files, groups
from regente.config.own_settings import OWN_SETTINGS
from regente.config.signatures import TargetNotFound, read
from regente.errors import ConfigError


def complete(words: list[str], incomplete: str) -> list[str]:
    """Experiments as the first word; then groups, their options, and the keys and values of the config."""
    named = bool(words) and "=" not in words[0]
    experiment = words[0] if named else DEFAULT_EXPERIMENT
    offers: list[str] = [] if words else list(experiment_files())
    mark = incomplete[: len(incomplete) - len(incomplete.lstrip("+~"))]
    key, equals, _ = incomplete.removeprefix(mark).partition("=")
    if equals and key in groups():
        offers = [f"{mark}{key}={option}" for option in groups()[key]]
    elif equals:
        values = _values(_config(experiment, words[named:]), key)
        offers = [f"{mark}{key}={each if isinstance(each, str) else json.dumps(each)}" for each in values]
    else:
        offers += [f"{mark}{group}=" for group in groups()]
        offers += [f"{mark}{leaf}=" for leaf in _leaves(_config(experiment, words[named:]), "")]
    return [offer for offer in offers if offer.startswith(incomplete)]


def _config(experiment: str, overrides: list[str]) -> dict[str, Any]:
    """The config under the choices so far, its references unresolved: a value may be missing yet."""
    try:
        node = compose(experiment, [o for o in overrides if o.partition("=")[0] in groups()]).node
    except ConfigError:
        return {}
    plain: Any = OmegaConf.to_container(node)
    return plain  # type: ignore[no-any-return]


def _leaves(node: Any, path: str) -> Iterator[str]:
    if not isinstance(node, dict):
        yield path
        return
    for name, value in node.items():
        if not str(name).startswith("_"):
            yield from _leaves(value, f"{path}.{name}" if path else str(name))


def _values(config: dict[str, Any], key: str) -> list[object]:
    """The values that a setting's class names one by one."""
    *path, name = key.split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if len(path) == 1 and (limit := OWN_SETTINGS.get(path[0], {}).get(name)):
        return list(limit.choices)
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        return []
    try:
        parameter = read(node["_target_"]).parameters.get(name)
    except (TargetNotFound, SyntaxError):
        return []
    return list(dict.fromkeys(parameter.annotation.choices)) if parameter else []
