"""Stage 3 of a run: the job directory, which holds everything that a worker needs, and everything that a run writes.

config.yaml job.json    the composed config with its references, and the fields of `Job`; signed, see signature.py
journal.jsonl           everything that is to go to MLflow, one JSON object a line; see tracking/journal.py
recorded.json           how much of the journal is in MLflow; see tracking/mlflow_run.py
process.json            the process that runs the job or ran it last; its time is the heartbeat
provenance.json         code, hardware and packages at the start; changes.patch has uncommitted changes
torch.json              torch, CUDA and threads of the training
data.json               name, source, digest and splits of the data
fitted_state.json       what the data module computed from the training samples, such as mean and std
vocabulary.txt          the words of a text
found.json              settings that find_lr and find_batch_size found; learning_rates.json, batch_sizes.json
halved.json             how often trainer.on_oom has halved the batch size
example.npy             two samples as the model gets them
model.txt               the layers of the model
trace.jsonl             losses and hashes of weights, for `regente rerun --verify`
checkpoints/ resume/    the best and last weights, and the states to resume from
test.npz                label, prediction and loss of each test sample; see SamplePredictions
samples/ profile/       generated texts; the profile of trainer=profile
exported/               the best weights as a program, until it is in MLflow
result.json             metrics, best checkpoint, time; only of a finished run
evaluation-*/ export/   of `regente evaluate` and `regente export`
stdout.log stderr.log   the output of a job of a sweep
logs/                   of several ranks: the output of each rank but rank 0, how each of them ended, a signal to all
traceback.txt           of an error, the latest
shipper.log             the output of the process that ships the journal
running.lock            held by the process that runs the job; .shipper.lock by the one that ships its journal
exit.json stop.json     of a job on Slurm: its exit code, and how often it was asked to stop
"""

import fcntl
import json
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from types import UnionType
from typing import IO, Any, TypeVar, get_args, get_origin, get_type_hints

from regente.errors import ConfigError, RegenteError
from regente.jobs.found_files import irregular, parse_json, read_text
from regente.jobs.signature import sign

FITTED_STATE = "fitted_state.json"
DATA = "data.json"
PROVENANCE = "provenance.json"
FOUND = "found.json"
EXAMPLE = "example.npy"
ARTIFACTS = "artifacts"  # a folder: what a user's code logs as files
PROCESS = "process.json"
RESULT = "result.json"
JOURNAL = "journal.jsonl"
QUEUE = "queue.json"  # of a sweep
TRIAL = "REGENTE_TRIAL"  # environment variable of a trial of a search: its `Pruning` callback as JSON
TYPES: dict[str, dict[str, Any]] = {  # of the fields of these files; a value of another type is left out
    PROVENANCE: {"code": dict, "hardware": dict, "packages": list[str]},
    DATA: {"name": str, "source": str, "digest": str, "splits": dict[str, int]},
    "halved.json": {"times": int},
    ".order": {"last": int},
    "job.json": {"order": int},
    "queue.json": {"monitor": dict[str, str]},
    "exit.json": {"code": int},
    "stop.json": {"requests": int},
}
ARROW = " -> "  # between an old value and a new one
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A frozen run: a directory with `config.yaml`, composed but not resolved, and `job.json`, these fields."""

    path: Path
    experiment: str
    overrides: list[str]
    command: list[str]
    project: str  # the working directory: relative paths of the config start there
    created: str  # UTC, ISO 8601
    digest: str  # SHA-256 of config.yaml
    choices: dict[str, str]  # the option of each config group
    env: dict[str, str] = field(default_factory=dict)  # hydra.job.env_set, secrets as ${oc.env:NAME}
    swept: list[str] = field(default_factory=list)  # keys whose values tell it from other jobs of its sweep
    rerun_of: str = ""  # the run that it repeats: its MLflow id, or its directory
    order: int = 0  # among the runs of a project; see _next_order
    signature: str = ""  # of the user who made it; see signature.py
    # changed settings of each attempt, by its number: "old -> new" by key
    resumes: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def config(self) -> str:
        """The frozen config as YAML text, read once: what was checked is what is used."""
        return read_text(self.path / "config.yaml")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def changes(self) -> dict[str, str]:
        """The new value of each setting that was changed when the run was resumed, by key."""
        return {
            key: text.partition(ARROW)[2]
            for number in sorted(self.resumes, key=int)
            for key, text in self.resumes[number].items()
        }

    @property
    def resume_states(self) -> Path:
        """The folder of the states to resume from."""
        return self.path / "resume"

    @property
    def journal(self) -> Path:
        """The file of the journal."""
        return self.path / JOURNAL


def freeze(config: str, folder: Path, name: str | None = None, **facts: Any) -> Job:
    """Make `folder/<time>-<short id>`, or `folder/name`. It appears whole or not at all, and replaces nothing.

    `facts` are the fields of Job that the request gives: experiment, overrides, command, choices, env, swept.

    Raises:
        ConfigError: when the folder cannot be made or written.
    """
    digest = sha256(config.encode()).hexdigest()
    now = time.gmtime()
    name = name or f"{time.strftime('%Y%m%d-%H%M%S', now)}-{digest[:6]}"
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
    draft = folder / f".{name}.{os.getpid()}"
    try:
        draft.mkdir(parents=True)
        facts |= {"created": created, "order": _next_order(folder), "project": str(Path.cwd())}
        job = _signed(Job(path=folder / name, digest=digest, **facts), config)
        (draft / "config.yaml").write_text(config, encoding="utf-8")
        write_json(draft / "job.json", _facts(job))
        path = _rename_to_new(draft, job.path)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ConfigError(
            f"{folder}: cannot create a job directory here ({error.strerror}); start in another folder"
        ) from error
    return open_job(path)


def _next_order(folder: Path) -> int:
    """Nanoseconds since the epoch, or one more than the last run got: clocks may go back."""
    file = next((each for each in (folder, *folder.parents) if each.name == "runs"), folder) / ".order"
    last = read_json(file).get("last", 0)
    order: int = max(time.time_ns(), last + 1)
    write_json(file, {"last": order})
    return order


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
    """The lock of a job, which this process holds until it closes the file or ends.

    Raises:
        ConfigError: when another process holds it.
    """
    file = (job.path / "running.lock").open("a+", encoding="utf-8")
    try:
        # a record lock: forked shippers and loaders do not inherit it
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise ConfigError(
            f"{job.path}: is already running (process {holder}); wait for it, or stop it first"
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
    job = _signed(replace(job, digest=sha256(config.encode()).hexdigest(), resumes=resumes), config)
    write_json(job.path / "job.json", _facts(job))
    return job


def moved(job: Job, project: Path) -> Job:
    """A job of the user's own whose project was moved or copied to another folder, signed for that folder."""
    job = _signed(replace(job, project=str(project)), job.config)
    write_json(job.path / "job.json", _facts(job))
    return job


def signed_content(job: Job, config: str | None = None) -> list[Any]:
    """What the signature of a job is over: its config, and all that job.json says."""
    facts = {name: value for name, value in _facts(job).items() if name != "signature"}
    return [job.config if config is None else config, facts]


def _signed(job: Job, config: str) -> Job:
    return replace(job, signature=sign(signed_content(job, config)))


def _facts(job: Job) -> dict[str, Any]:
    return {key: value for key, value in asdict(job).items() if key != "path"}


def open_job(path: Path) -> Job:
    """The job in a directory.

    Raises:
        RegenteError: when the directory is not a job's, or holds what would lead a reader elsewhere.
    """
    try:
        facts = parse_json(read_text(path / "job.json"))
        job = Job(path=path.resolve(), **facts)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RegenteError(f"{path}: not a job directory ({error})") from error
    wrong = [name for name, value in facts.items() if not fits(Job.__annotations__[name], value)]
    if wrong or not all(number.isdecimal() for number in job.resumes):
        raise RegenteError(f"{path}: not a job directory (job.json: {', '.join(wrong) or 'resumes'})")
    if odd := irregular(path):
        raise RegenteError(f"{path / odd.name}: a pipe, a device or a link to elsewhere; delete it")
    return job


def fits(kind: Any, value: Any) -> bool:
    """Whether a value of a file has a type: a class, `list[T]`, `dict[str, T]`, or several with `|`."""
    if type(kind) is not type:
        return _fits_form(kind, value)
    return isinstance(value, int | float if kind is float else kind) and (kind is bool) == isinstance(
        value, bool
    )


def _fits_form(kind: Any, value: Any) -> bool:
    origin, of = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(fits(of[0], each) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(of[1], each) for each in value.values())
    if origin is UnionType:
        return any(fits(each, value) for each in of)
    if kind is None:
        return value is None
    return kind is Any or isinstance(value, kind)


@cache
def types_of(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass."""
    return get_type_hints(kind)


def read_as(kind: type[T], path: Path) -> T | None:
    """The object of a dataclass in a small file; None if there is none, or its fields have other types."""
    return as_dataclass(kind, read_json(path))


def as_dataclass(kind: type[T], content: dict[str, Any] | None) -> T | None:
    """The object of a dataclass with these fields; None if there are none, or they are not those of the class."""
    types = types_of(kind)  # type: ignore[arg-type]  # mypy: type[T] is not Hashable
    if not content or not all(name in types and fits(types[name], value) for name, value in content.items()):
        return None
    with suppress(TypeError):  # a field is missing
        return kind(**content)
    return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file, see TYPES; empty if there is no such regular file, or it is damaged."""
    types = TYPES.get(path.name, {})
    with suppress(OSError, ValueError, RecursionError):
        content = parse_json(read_text(path))
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if fits(types.get(key, Any), value)}
    return {}


def write_json(path: Path, value: Any) -> None:
    """Write a small file; it appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
