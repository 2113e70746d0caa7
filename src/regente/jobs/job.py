"""Step 3 of a run: a directory that holds everything a worker needs to run it."""

import fcntl
import json
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, get_args, get_origin

from regente.errors import ConfigError, RegenteError

FITTED_STATE = (
    "fitted_state.json"  # in the job directory: what the data module learned of the training samples
)
DATA = "data.json"  # in the job directory: name, place, digest and splits of the data
PROVENANCE = "provenance.json"  # in the job directory: code, hardware and packages when it started
FOUND = "found.json"  # in the job directory: settings that were found for it, by their dotted names
EXAMPLE = "example.npy"  # in the job directory: two samples as the model gets them
PROCESS = (
    "process.json"  # in the job directory: the process that runs it or ran it last; touched as a heartbeat
)
TRIAL = (
    "REGENTE_TRIAL"  # in the environment of a trial of a search: the node of its `Pruning` callback, as JSON
)
ARROW = " -> "  # between an old value and a new one


@dataclass(frozen=True)
class Job:
    """A frozen run: `config.yaml` (composed, references unresolved) and `job.json` (this) in one directory."""

    path: Path
    experiment: str
    overrides: list[str]
    command: list[str]
    project: str  # the working directory: relative paths of the config start there
    created: str  # UTC, ISO 8601
    digest: str  # SHA-256 of config.yaml
    choices: dict[str, str]  # the option of each config group
    env: dict[str, str] = field(default_factory=dict)  # hydra.job.env_set, secrets as ${oc.env:NAME}
    swept: list[str] = field(default_factory=list)  # keys that tell it from the other jobs of its sweep
    rerun_of: str = ""  # the run that it does once more: its MLflow id, or its directory
    # by number of attempt: what was changed for it, "old -> new" by key
    resumes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """The frozen config as YAML text."""
        return (self.path / "config.yaml").read_text(encoding="utf-8")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.path / "checkpoints"

    def changes_since(self, attempt: int) -> dict[str, tuple[str, str]]:
        """Old and new value of what was changed for later attempts, by key."""
        found: dict[str, tuple[str, str]] = {}
        for number in sorted(map(int, self.resumes)):
            for key, text in self.resumes[str(number)].items() if number > attempt else ():
                old, _, new = text.partition(ARROW)
                found[key] = (found.get(key, (old, ""))[0], new)
        return found

    @property
    def resume_states(self) -> Path:
        """Where the states go from which the run can go on."""
        return self.path / "resume"

    @property
    def journal(self) -> Path:
        """What the run has to say to the tracking store, one JSON object a line."""
        return self.path / "journal.jsonl"


def freeze(config: str, folder: Path, name: str | None = None, **facts: Any) -> Job:
    """Make `folder/<time>-<short id>`, or `folder/name`; it appears whole or not at all, and never over another one.

    `facts` are the fields of Job that the request gives: experiment, overrides, command, choices, env, swept.

    Raises:
        ConfigError: when the folder cannot be made or written.
    """
    digest = sha256(config.encode()).hexdigest()
    now = time.gmtime()
    name = name or f"{time.strftime('%Y%m%d-%H%M%S', now)}-{digest[:6]}"
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
    job = Job(path=folder / name, project=str(Path.cwd()), created=created, digest=digest, **facts)
    draft = folder / f".{name}.{os.getpid()}"
    try:
        draft.mkdir(parents=True)
        (draft / "config.yaml").write_text(config, encoding="utf-8")
        write_json(draft / "job.json", _facts(job))
        path = _rename_to_new(draft, job.path)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ConfigError(
            f"{folder}: no job directory can be made here ({error.strerror}); start in another folder"
        ) from error
    return open_job(path)


def _rename_to_new(draft: Path, path: Path) -> Path:
    """Rename to `path`, or to `path` with a suffix when that is taken."""
    target = path
    while True:
        try:
            draft.rename(target)  # a directory cannot replace one that holds files
            return target
        except OSError:
            if not target.exists():
                raise
            target = path.with_name(f"{path.name}-{secrets.token_hex(2)}")


def claim(job: Job) -> IO[str]:
    """The right to run a job, held by this process until it closes the file or ends in whatever way.

    Raises:
        ConfigError: when another process has it.
    """
    file = (job.path / "running.lock").open("a+", encoding="utf-8")
    try:
        # a record lock, which forked shippers and loaders do not inherit
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise ConfigError(
            f"{job.path}: is running already (process {holder}); wait for it, or end it first"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def refreeze(job: Job, config: str, attempt: int, changes: dict[str, str]) -> Job:
    """The job with a changed config, for its next attempt."""
    draft = job.path / f".config.yaml.{os.getpid()}"
    draft.write_text(config, encoding="utf-8")
    draft.replace(job.path / "config.yaml")
    resumes = {**job.resumes, str(attempt): changes}
    job = replace(job, digest=sha256(config.encode()).hexdigest(), resumes=resumes)
    write_json(job.path / "job.json", _facts(job))
    return job


def _facts(job: Job) -> dict[str, Any]:
    return {key: value for key, value in asdict(job).items() if key != "path"}


def open_job(path: Path) -> Job:
    """The job in a directory.

    Raises:
        RegenteError: when the directory is not a job's.
    """
    try:
        facts = json.loads((path / "job.json").read_text(encoding="utf-8"))
        job = Job(path=path.resolve(), **facts)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RegenteError(f"{path}: not a job directory ({error})") from error
    if wrong := [name for name, value in facts.items() if not _fits(Job.__annotations__[name], value)]:
        raise RegenteError(f"{path}: not a job directory (job.json: {', '.join(wrong)})")
    return job


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value out of a file is of the type that a field of Job has."""
    if kind is str or kind is int:
        return isinstance(value, kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(get_args(kind)[0], each) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(get_args(kind)[1], each) for each in value.values())
    return False


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file; empty where there is none, or none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def write_json(path: Path, value: Any) -> None:
    """Write a small file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
