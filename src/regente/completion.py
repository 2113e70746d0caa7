"""What Tab offers behind `regente train` and `regente check`."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from regente.catalog import DEFAULT_EXPERIMENT, experiment_files, groups
from regente.compose import compose
from regente.errors import ConfigError


def complete(words: list[str], incomplete: str) -> list[str]:
    """Experiments as the first word; then groups, their options, and the keys and values of the config."""
    named = bool(words) and "=" not in words[0]
    offers: list[str] = [] if words else list(experiment_files())
    mark = incomplete[: len(incomplete) - len(incomplete.lstrip("+~"))]
    key, equals, _ = incomplete.removeprefix(mark).partition("=")
    if equals and key in groups():
        offers = [f"{mark}{key}={option}" for option in groups()[key]]
    else:
        offers += [f"{mark}{group}=" for group in groups()]
        offers += [
            f"{mark}{leaf}" for leaf in _leaves(words[0] if named else DEFAULT_EXPERIMENT, words[named:])
        ]
    return [offer for offer in offers if offer.startswith(incomplete)]


def _leaves(experiment: str, overrides: list[str]) -> Iterator[str]:
    try:
        node = compose(experiment, [o for o in overrides if o.partition("=")[0] in groups()]).node
    except ConfigError:
        return

    def walk(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                if not str(name).startswith("_"):
                    yield from walk(value, f"{path}.{name}" if path else str(name))
        else:
            yield f"{path}="

    yield from walk(OmegaConf.to_container(node), "")  # not resolved: a value may be missing yet
