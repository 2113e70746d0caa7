"""What comes out of a run, an artifact or a download is data, not code: it may only be made of known parts.

The command line, `conf/` and the folder that the user starts in are code, and free to name anything. A config that
was recorded may name classes under the packages of trusted_names.py, and component classes of the project in that
folder. What else it may name the project itself says, never the config, in its pyproject.toml:

    [tool.regente]
    trusted = ["segmentation_models_pytorch", "own_models.make_net", "env:DATASET_TOKEN"]

A package or class; a function by its full name; an environment variable with a secret's name; the address of a store.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from regente.config.environment import from_environment
from regente.config.interpolation import resolve
from regente.config.redaction import looks_secret
from regente.config.tracking_uri import sqlite_path
from regente.config.trusted_names import listed_by, remedy, why_not, why_not_imported
from regente.errors import ConfigError, Problem
from regente.jobs.job import Job

SPECIAL = {  # Hydra's own keys
    "_target_": lambda value: value is None or isinstance(value, str),
    "_partial_": lambda value: isinstance(value, bool),
    "_recursive_": lambda value: isinstance(value, bool),
    "_convert_": lambda value: value in ("none", "partial", "object", "all"),
    "_args_": lambda value: isinstance(value, list),
}
KEY = r"[A-Za-z_][\w.\[\]]*"
READS = rf"oc\.env:\s*(?P<name>[A-Za-z_]\w*)\s*(?:,[^${{}}]*)?|oc\.(?:select|dict\.keys|dict\.values):\s*{KEY}|\.*{KEY}"
REFERENCE = re.compile(rf"\$\{{\s*(?:{READS})\s*\}}", re.ASCII)
DECODED = re.compile(r"\$\{oc\.decode:(\$\{[^${}]*\})\}")
OUT = re.compile(
    r"[/\\~]|[A-Za-z]:|[A-Za-z][\w+.-]*://|(?:.*[/\\])?\.\.(?:[/\\]|$)"
)  # at the start of a path
HARMLESS = "|".join(  # variables of the environment that a run may set
    [
        r"(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB)_(NUM|MAX|MAXIMUM)_THREADS",
        *("OMP_(PROC_BIND|PLACES|DYNAMIC|WAIT_POLICY)", "KMP_(AFFINITY|BLOCKTIME)", "MKL_(DYNAMIC|CBWR)"),
        *("NCCL_(DEBUG|SOCKET_IFNAME|IB_DISABLE|P2P_DISABLE)", "PYTORCH_(CUDA_)?ALLOC_CONF"),
        *("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "TOKENIZERS_PARALLELISM"),
    ]
)
DEEPEST, LARGEST = 40, 1_000_000  # levels, and bytes, of a recorded config


def read_config(job: Job, project: Path, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The recorded config of a job, or these `parts` of it, resolved and made of trusted parts alone.

    Raises:
        ConfigError: naming each place that is not to be trusted, or that cannot be resolved.
    """
    try:
        text = job.config
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(f"{job.path}/config.yaml", f"cannot be read ({error})")]) from error
    if problems := list(_text(text, parts, listed_by(project))):
        raise ConfigError(problems)
    config = resolve(text, parts)
    if missing := [part for part in parts or () if not isinstance(config.get(part), dict)]:
        raise ConfigError([Problem(part, "is no part of the recorded config") for part in missing])
    require_trusted(config, project)
    return config


def require_trusted(config: dict[str, Any], project: Path) -> None:
    """Refuse a plain config that names anything but trusted parts; `project` is the folder the user started in.

    Names are looked at before anything is imported, and what was imported once more by where it is really from.

    Raises:
        ConfigError: naming each place.
    """
    listed = listed_by(project)
    problems = list(_plain(config, ""))
    if "tracking" in config:
        problems += _store(config["tracking"], project)
    places = [] if problems else list(_targets(config, ""))
    problems += [Problem(where, why) for where, name in places if (why := why_not(name, project, listed))]
    if not problems:
        problems += [
            Problem(where, why) for where, name in places if (why := why_not_imported(name, project, listed))
        ]
    if problems:
        raise ConfigError(problems)


def require_trusted_job(job: Job, project: Path) -> None:
    """Refuse to run a found job in its place unless it may: its environment, its folder to start in, its config.

    Raises:
        ConfigError: naming each place.
    """
    require_known_env(job)
    if Path(job.project).resolve() != project.resolve():
        what = f"it belongs to {ascii(job.project)[1:200]}; start there, if that is your project"
        raise ConfigError([Problem(f"run {job.path}", what)])
    read_config(job, project)


def require_known_env(job: Job) -> None:
    """Refuse what a found job would set in the environment, unless it is harmless or set already.

    Raises:
        ConfigError: naming each variable.
    """
    strange = [
        name
        for name, value in job.env.items()
        if not (re.fullmatch(HARMLESS, name) and "${" not in value)
        and os.environ.get(name) != from_environment(value)
    ]
    if strange:
        what = "refused: a run does not set it; set it in your shell, if it should be"
        raise ConfigError([Problem(f"hydra.job.env_set.{name}", what) for name in strange])


def inside(folder: Path, name: str) -> Path:
    """The file or folder of this name in `folder`, for a name that was read from a run or an artifact.

    Raises:
        ConfigError: when it leads elsewhere: absolute, with a drive, `..`, or a link that points out.
    """
    path = folder / name
    if not name or "\0" in name or OUT.match(name) or not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError([Problem(ascii(name)[:100], f"refused: it leads out of {folder}")])
    return path


def _text(text: str, parts: Collection[str] | None, listed: tuple[str, ...]) -> Iterator[Problem]:
    """What a recorded config may not hold as text, before any reference in it is followed."""
    if len(text) > LARGEST:
        yield Problem("config.yaml", f"{len(text)} characters; a recorded config is never so large")
        return
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                yield Problem("config.yaml", "holds YAML aliases or tags, which no recorded config does")
                return
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        yield Problem("config.yaml", f"bad YAML: {' '.join(str(error).split())[:200]}")
        return
    if not isinstance(content, dict):
        yield Problem("config.yaml", "is not a config")
        return
    unread = "tracking" if parts is not None and "tracking" not in parts else ""
    for where, value in _leaves({key: value for key, value in content.items() if key != unread}, ""):
        if unread and re.search(rf"\$\{{[^}}]*\b{unread}\b", value):
            yield Problem(where, f"refused: it reads {unread}, whose part this is not")
        for found in REFERENCE.finditer(value):
            name = found["name"] or ""
            if looks_secret(name) and not name.startswith("REGENTE_SECRET_") and f"env:{name}" not in listed:
                yield Problem(where, f"refused: it reads ${name}; if it may, {remedy(f'env:{name}')}")
        if "${" in REFERENCE.sub("", DECODED.sub(r"\1", value)):
            yield Problem(where, f"refused: {value[:60]} is more than a reference")


def _leaves(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a config, its keys too."""
    if isinstance(node, dict | list):
        for path, key, value in _items(node, where):
            if isinstance(key, str):
                yield path, key
            yield from _leaves(value, path)
    elif isinstance(node, str):
        yield where, node


def _items(node: dict[Any, Any] | list[Any], where: str) -> Iterator[tuple[str, Any, Any]]:
    """Dotted place, key and value of each part."""
    if isinstance(node, dict):
        yield from ((f"{where}.{key}" if where else str(key), key, value) for key, value in node.items())
    else:
        yield from ((f"{where}[{index}]", index, value) for index, value in enumerate(node))


def _plain(node: Any, where: str, depth: int = 0) -> Iterator[Problem]:
    """What is not plain data, or would be read once more when the part is made."""
    if depth > DEEPEST:
        yield Problem(where, f"refused: nested more than {DEEPEST} levels")
    elif isinstance(node, dict | list):
        for path, key, value in _items(node, where):
            if isinstance(key, str) and re.fullmatch(r"_\w*_", key):
                if key not in SPECIAL or not SPECIAL[key](value):
                    yield Problem(path, f"refused: {str(value)[:60]} is no setting of Hydra's")
            elif isinstance(node, dict) and not isinstance(key, str | int):
                yield Problem(path, f"refused: a key of type {type(key).__name__}")
            elif isinstance(value, str) and _leads_out(path, value):
                yield Problem(path, f"refused: {value[:60]} leads out of the job directory; leave it out")
            yield from _plain(value, path, depth + 1)
    elif isinstance(node, str):
        if "${" in node:
            yield Problem(where, f"refused: {node[:60]} is a reference that would be followed later")
    elif node is not None and type(node) not in (int, float, bool):
        yield Problem(where, f"refused: {type(node).__name__} is not plain data")


def _leads_out(where: str, text: str) -> bool:
    """Whether a callback or the trainer would write elsewhere; Regente itself says where checkpoints go."""
    return where.startswith(("callbacks.", "trainer.")) and (
        where.endswith(".dirpath") or bool(OUT.match(text)) or "\0" in text
    )


def _store(tracking: Any, project: Path) -> Iterator[Problem]:
    """A store that only the config names gets neither results nor the credentials of the environment."""
    uri = tracking.get("uri") if isinstance(tracking, dict) else tracking
    if uri is None or uri == os.environ.get("MLFLOW_TRACKING_URI") or uri in listed_by(project):
        return
    path = sqlite_path(str(uri), project)
    near = path is not None and path.resolve().is_relative_to(project.resolve()) and "?" not in str(uri)
    parts = urlsplit(str(uri))
    here = parts.scheme in ("http", "https") and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not near and not here:
        shown = str(uri).rpartition("@")[2][:80]
        what = f"refused: {shown} is not this project's; if it is, give it as MLFLOW_TRACKING_URI, or"
        yield Problem("tracking.uri", f"{what} {remedy('ADDRESS')}")


def _targets(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` with its place, wherever it is."""
    if isinstance(node, dict | list):
        for path, key, value in _items(node, where):
            if key == "_target_" and value is not None:
                yield path, value
            yield from _targets(value, path)
