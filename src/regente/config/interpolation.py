"""A composed config as plain data, its references followed. Needs OmegaConf alone, without Hydra."""

import importlib
import re
from collections.abc import Collection
from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from regente.config.discovery import groups, options
from regente.config.environment import SECRET
from regente.config.pyproject import listed
from regente.errors import ConfigError, Problem

RESOLVER = re.compile(r"\$\{\s*(?!oc\.)[A-Za-z_][\w.]*\s*:")  # of Hydra or of the user's own code
# the same whole, with no references but plain ones in it
CALL = re.compile(r"\$\{\s*(?!oc\.)[A-Za-z_][\w.]*\s*:(?:[^${}]|\$\{[^${}:]*\})*\}")
ENVIRONMENT = re.compile(r"\$\{oc\.env:[^${}]*\}")
JOB_DIR = "REGENTE_JOB_DIR"  # environment variable of a process that runs a job
OUTPUT_DIR = re.compile(r"\$\{\s*hydra:\s*runtime\.output_dir\s*\}")
HYDRAS = re.compile(r"\$\{\s*hydra:")


def resolve(config: DictConfig | str, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The config, or the YAML text of one, as plain data; with `parts`, only these of its root keys.

    Raises:
        ConfigError: with every value that is missing and every reference that leads nowhere.
    """
    node = config
    if isinstance(node, str):
        node = parsed(node if parts is None else _excerpt(node, parts))
    problems: list[Problem] = []
    keys: list[Any] = [key for key in node if parts is None or str(key) in parts]
    plain = {key: _plain(_value(node, key, str(key), problems), str(key), problems) for key in keys}
    if problems:
        raise ConfigError(problems)
    return plain


def _excerpt(text: str, parts: Collection[str]) -> str:
    """Of a text that OmegaConf wrote, the root keys that are asked for, if they refer to no others.

    Parsing all takes six times longer.
    """
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    found = "".join(block for block in blocks if block.partition(":")[0] in parts)
    return text if "${" in ENVIRONMENT.sub("", found) else found


@lru_cache(4)
def parsed(text: str) -> DictConfig:
    """A frozen config; parsing takes longer than resolving, and a job asks several times."""
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    return node


def _plain(node: Any, path: str, problems: list[Problem]) -> Any:
    if isinstance(node, DictConfig):
        names: dict[Any, str] = {key: f"{path}.{key!s}" for key in node}
        return {key: _plain(_value(node, key, name, problems), name, problems) for key, name in names.items()}
    if isinstance(node, ListConfig):
        names = {index: f"{path}[{index}]" for index in range(len(node))}
        return [_plain(_value(node, index, name, problems), name, problems) for index, name in names.items()]
    return node


def _value(node: DictConfig | ListConfig, key: Any, path: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(node, key):
        known = f"; {options(path)}" if path in groups() else ""
        problems.append(Problem(path, f"has no value; give it one: {path}=...{known}"))
        return None
    try:
        return node[key]
    except InterpolationToMissingValueError:
        return None  # the key that has no value is a problem already
    except OmegaConfBaseException as error:
        unresolved: Any = OmegaConf.to_container(node, resolve=False)
        found = re.search(r"Interpolation key '(.*?)' not found", str(error))
        reason = f"{found[1]} does not exist" if found else str(error).splitlines()[0]
        if variable := re.search(r"Environment variable '(\w+)' not found", str(error)):
            if variable[1].startswith(SECRET):
                what = f"is a secret, which no file keeps; give it again: export {variable[1]}=..."
                problems.append(Problem(path, what))
                return None
            reason = f"this variable is not set; export {variable[1]}=..."
        if isinstance(error, UnsupportedInterpolationType):
            module = (
                'name the module that registers it in pyproject.toml: [tool.regente] resolvers = ["MODULE"]'
            )
            reason = f"there is no such resolver; {module}"
        problems.append(Problem(path, f"refers to {unresolved[key]}, but {reason}"))
        return None


def without_resolvers(node: DictConfig) -> DictConfig:
    """The config with the value of each `${now:%Y}`: a resume would find another one, and a worker has no such resolvers.

    OmegaConf's own (`oc.`) stay: what they read is there later, and what they read may be secret.
    """
    if not RESOLVER.search(OmegaConf.to_yaml(node)):
        return node
    fixed = deepcopy(node)
    _fix(OmegaConf.to_container(node), fixed)
    return fixed


def _fix(raw: Any, live: Any) -> None:
    for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw):
        if isinstance(value, str) and RESOLVER.search(value):
            live[key] = CALL.sub(partial(_value_of, live, key), value) if "${oc." in value else live[key]
        elif isinstance(value, dict | list):
            _fix(value, live[key])


def _value_of(live: Any, key: Any, call: re.Match[str]) -> str:
    live[key] = call[0]
    return str(live[key])


def pin_hydra(node: DictConfig | ListConfig, path: str = "") -> None:
    """Replace `${hydra:...}` by its value; the output directory is that of the job, which is made later.

    Raises:
        ConfigError: for a value that only Hydra's own launcher has.
    """
    keys: Any = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if OmegaConf.is_missing(node, key):
            continue
        if not OmegaConf.is_interpolation(node, key):
            if OmegaConf.is_config(node[key]):
                pin_hydra(node[key], f"{path}{key}.")
            continue
        raw: Any = OmegaConf.to_container(node, resolve=False)
        text = OUTPUT_DIR.sub(f"${{oc.env:{JOB_DIR},.}}", str(raw[key]))
        node[key] = text
        if HYDRAS.search(text):
            try:
                value = node[key]
            except OmegaConfBaseException:
                continue  # `resolve` reports it
            if value is None:  # such as ${hydra:job.num}
                what = f"refers to {text}, which a job has not here; give it a value, or sweep over the key itself"
                raise ConfigError([Problem(f"{path}{key}", what)])
            node[key] = value


def register_resolvers() -> None:
    """Import the modules that register resolvers of the user's own: pyproject.toml, [tool.regente] resolvers.

    Raises:
        ConfigError: for a module that cannot be imported.
    """
    for name in listed("resolvers", Path.cwd()):
        try:
            importlib.import_module(name)
        except ImportError as error:
            what = f"{name} cannot be imported: {error}"
            raise ConfigError([Problem("pyproject.toml, tool.regente.resolvers", what)]) from error


def references(text: str) -> set[str]:
    """The root keys that the references in a YAML text lead to: `paths` for `${paths.data}`."""
    return set(re.findall(r"\$\{\s*(?:[\w.]+:\s*)?([A-Za-z_]\w*)[.\[}]", text))


def to_yaml(node: Any, *, resolve: bool = False) -> str:
    """A config as YAML text; with `resolve` the references are replaced by their values."""
    return OmegaConf.to_yaml(node, resolve=resolve)
