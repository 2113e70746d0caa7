"""A config from a run, an artifact or a download is data, not code: it may only name trusted parts.

The command line, `conf/` and the folder that the user starts in are code, and may name anything. So may a job that
this user has made, which its signature tells. Any other recorded config may name classes below the packages of
trusted_names.py, and component classes of the project in that folder. The project, never the config, may trust more
in its pyproject.toml:

    [tool.regente]
    trusted = ["segmentation_models_pytorch", "own_models.make_net", "env:DATASET_TOKEN"]

A package or class; a function by its full name; an environment variable with a secret's name; the address of a store.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from regente.config.environment import from_environment
from regente.config.interpolation import parsed, resolve
from regente.config.task_parts import OPTIONAL
from regente.config.tracking_uri import sqlite_path
from regente.config.trusted_names import listed_by, refusal_by_import, refusal_by_name, remedy
from regente.errors import ConfigError, Problem, RegenteError
from regente.jobs.found_files import irregular
from regente.jobs.job import Job, moved, open_job, signed_content
from regente.jobs.plain_config import HARMLESS, LEADS_OUT, items, plain_problems, text_problems
from regente.jobs.runs import shown
from regente.jobs.signature import keeps_keys, why_not_own

HANDED_OVER = "REGENTE_JOB"  # see handed_over


def read_config(job: Job, project: Path, parts: Collection[str] | None = None) -> dict[str, Any]:
    """The recorded config of a job, or these `parts` of it, resolved; of trusted parts alone, unless it is the user's own.

    Raises:
        ConfigError: naming each key that is not to be trusted, or that cannot be resolved.
    """
    try:
        text = job.config
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(f"{job.path}/config.yaml", f"cannot be read ({error})")]) from error
    if why := _why_not_own(job):
        if odd := irregular(job.path, whole=True):
            _require(job, [Problem(shown(odd), "refused: a pipe, a device or a link to elsewhere")], why)
        _require(job, list(text_problems(text, parts, listed_by(project))), why)
    try:
        config = resolve(parsed(text) if why else text, parts)  # as a whole where it was checked as a whole
    except yaml.YAMLError as error:  # OmegaConf's own parser takes less than libyaml
        what = f"bad YAML: {' '.join(str(error).split())[:200]}"
        raise ConfigError([Problem(f"{shown(job.path)}/config.yaml", what)]) from error
    missing = [part for part in parts or () if not isinstance(config.get(part), dict)]
    if missing := [part for part in missing if part not in OPTIONAL or part in config]:
        raise ConfigError([Problem(part, "is no part of the recorded config") for part in missing])
    require_trusted_config(job, config, project)
    return config


def require_trusted_config(job: Job, config: dict[str, Any], project: Path) -> None:
    """Refuse what `require_trusted` refuses in the config of a job, unless this user has made the job.

    Raises:
        ConfigError: naming each key, and why the job is not the user's own.
    """
    if why := _why_not_own(job):
        try:
            require_trusted(config, project)
        except ConfigError as error:
            _require(job, error.problems, why)


def made_by_user(job: Job) -> bool:
    """Whether this user has made the job."""
    return not _why_not_own(job)


def trusted_overrides(job: Job) -> list[str]:
    """The recorded overrides, without those of a found job that tell Hydra where to look for configs."""
    if made_by_user(job):
        return job.overrides
    return [word for word in job.overrides if not word.lstrip("+~").startswith("hydra")]


def _why_not_own(job: Job) -> str:
    try:
        return why_not_own(signed_content(job), job.signature)
    except (OSError, UnicodeDecodeError):
        return "its config.yaml cannot be read"


def _require(job: Job, problems: Sequence[Problem], why: str) -> None:
    """Refuse a job for these problems, if there are any; the last one also says why its names are not trusted as they are."""
    if problems:
        *others, last = problems
        what = f"{last.what} (only trusted names are taken from {shown(job.path)}: {why})"
        raise ConfigError([*others, replace(last, what=what)])


def require_trusted(config: dict[str, Any], project: Path) -> None:
    """Refuse a plain config that names anything but trusted parts; `project` is the folder the user started in.

    All names are checked before anything is imported; then each imported class is checked by the module that defines it.

    Raises:
        ConfigError: naming each key.
    """
    listed = listed_by(project)
    problems = list(plain_problems(config))
    if "tracking" in config:
        problems += _store_problems(config["tracking"], project)
    targets = [
        (where, each) for where, key, each, _ in items(config) if key == "_target_" and each is not None
    ]
    for refusal in (refusal_by_name, refusal_by_import):
        if not problems:
            problems = [
                Problem(where, why) for where, each in targets if (why := refusal(each, project, listed))
            ]
    if problems:
        raise ConfigError(problems)


def require_trusted_job(job: Job, project: Path) -> Job:
    """Refuse to run a found job in its own directory unless its environment, project and config are trusted.

    Raises:
        ConfigError: naming each key.
    """
    require_known_env(job)
    job = _of_project(job, project.resolve())
    read_config(job, project)
    return job


def require_own_job(job: Job, project: Path) -> Job:
    """Refuse a job directory that a sweep has found where its own would be.

    Where no key can be kept no job is known to be the user's own: there, a job of trusted parts alone goes on.

    Raises:
        ConfigError: naming the file, or each key.
    """
    if not (why := _why_not_own(job)):
        return _of_project(job, project.resolve())
    if not keeps_keys():
        return require_trusted_job(job, project)
    what = f"refused: {why}; to start anew, move {shown(job.path)} away"
    raise ConfigError([Problem(f"{shown(job.path)}/job.json", what)])


def _of_project(job: Job, project: Path) -> Job:
    """A job of a project. One of the user's own is of the project that it lies in, which may have been moved or copied."""
    if Path(job.project).resolve() == project:
        return job
    if job.path.is_relative_to(project) and made_by_user(job):
        return moved(job, project)
    what = f"it belongs to {ascii(job.project)[1:200]}; start there, if that is your project"
    raise ConfigError([Problem(f"run {job.path}", what)])


def handed_over(job: Job) -> dict[str, str]:
    """What the environment of a process says of the job that it is started for: its fingerprint."""
    text = json.dumps(signed_content(job), sort_keys=True)
    return {HANDED_OVER: sha256(text.encode(errors="surrogatepass")).hexdigest()}


def run_handed_over(path: Path, run: Callable[[Path], int]) -> int:
    """Call `run` with the job directory that is the argument of a process, if its starter means that job or it is trusted.

    Returns the exit code. The key need not be on the machine of a cluster that runs a job.
    """
    try:
        job = open_job(path)
        if not handed_over(job).items() <= os.environ.items():
            require_trusted_job(job, Path.cwd())
    except RegenteError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return run(path)


def require_known_env(job: Job) -> None:
    """Refuse the variables that a found job would set, unless they are harmless, set already, or the user's own.

    Raises:
        ConfigError: naming each variable.
    """
    refused = [
        name
        for name, value in job.env.items()
        if not (re.fullmatch(HARMLESS, name) and "${" not in value)
        and os.environ.get(name) != from_environment(value)
    ]
    if refused and (why := _why_not_own(job)):
        what = "refused: a run does not set it; set it in your shell, if it should be"
        _require(job, [Problem(f"hydra.job.env_set.{name}", what) for name in refused], why)


def inside(folder: Path, name: str, where: str = "") -> Path:
    """The file or folder of this name in `folder`, for a name that was read from a run or an artifact, `where`.

    Raises:
        ConfigError: when it leads elsewhere: absolute, with a drive, `..`, or a link that points out.
    """
    path = folder / name
    if (
        not name
        or "\0" in name
        or LEADS_OUT.match(name)
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        what = f"{ascii(name)[:100]} is refused: it leads out of {folder}"
        raise ConfigError([Problem(where, what)])
    return path


def _store_problems(tracking: Any, project: Path) -> Iterator[Problem]:
    """Refuse a store that only the config names: it would get results, and credentials of the environment."""
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
