"""What differs between two runs, by what their job directories record. No reference of a config is followed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from regente.analysis.flat_config import SEED, config_with_references
from regente.errors import ConfigError, Problem
from regente.jobs.job import DATA, FOUND, PROVENANCE, Job, read_json
from regente.jobs.runs import shown
from regente.tracking.journal import read
from regente.tracking.provenance import DECISIVE

# how likely each kind is to explain other results, where nothing else is known
KINDS = ("config", "data", "code", "seed", "packages", "resumed", "machine", "records")
ROOTS = "data augment model init_from loss task optimizer scheduler trainer callbacks monitor metrics"
RECORDS = ("tracking", "loggers")  # root keys that no step depends on
FIRST_PACKAGES = "torch pytorch-lightning lightning torchvision torchmetrics numpy regente"
TAGS = ("device", "ranks", "precision", "weights", "matmul")  # of a run, as the training found them


@dataclass(frozen=True)
class Difference:
    """A difference of two runs: its kind, what it is of, and how the two differ."""

    kind: str
    name: str
    text: str  # 0.001 | 0.01

    @property
    def place(self) -> tuple[int, int]:
        """The place in a list, the most likely cause first."""
        order = ROOTS.split() if self.kind == "config" else FIRST_PACKAGES.split()
        first = self.name.partition(".")[0]
        return KINDS.index(self.kind), order.index(first) if first in order else len(order)


def pair(a: Any, b: Any) -> str:
    """Two values side by side."""
    return " | ".join("none" if each is None else str(each) for each in (a, b))


def settings(job: Job) -> tuple[dict[str, Any], frozenset[str]]:
    """The recorded config by dotted name, and the settings that take their value from another one; see flat_config.py.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        return config_with_references(job.config)
    except (OSError, ValueError) as error:
        what = f"cannot be read: {' '.join(str(error).split())[:200]}"
        raise ConfigError([Problem(f"{shown(job.path)}/config.yaml", what)]) from error


def targets(job: Job) -> set[str]:
    """The classes and functions that the config names."""
    return {str(value) for key, value in settings(job)[0].items() if key.endswith("_target_")}


def config_differences(a: Job, b: Job) -> Iterator[Difference]:
    """Options of groups and settings; of another option, only the settings that the command line gave are listed."""
    (then, old_references), (now, new_references) = settings(a), settings(b)
    referring = old_references & new_references  # model.num_classes, where data.num_classes is listed
    options = [
        key for key in dict.fromkeys([*a.choices, *b.choices]) if a.choices.get(key) != b.choices.get(key)
    ]
    for key in options:
        yield Difference("config", key, pair(a.choices.get(key), b.choices.get(key)))
    given = {word.lstrip("+~").partition("=")[0] for word in [*a.overrides, *b.overrides]}
    folded = tuple("data.augment." if key == "augment" else f"{key}." for key in options)
    recorded = [_parameters(job) for job in (a, b)]  # resolved, as they were in the run
    for key in dict.fromkeys([*then, *now]):
        old, new = then.get(key), now.get(key)
        if old == new and "${oc." in str(old):
            old, new = (each.get(key) for each in recorded)
        if old == new or key in referring or (key.startswith(folded) and key not in given):
            continue
        kind = "seed" if key == SEED else "records" if key.split(".")[0] in RECORDS else "config"
        yield Difference(kind, key, pair(old, new))
    for file in (FOUND, "halved.json"):
        values = [read_json(job.path / file) for job in (a, b)]
        for key in sorted({*values[0], *values[1]}):
            if values[0].get(key) != values[1].get(key):
                name = f"{file.removesuffix('.json')}.{key}"
                yield Difference("config", name, pair(values[0].get(key), values[1].get(key)))


def _parameters(job: Job) -> dict[str, Any]:
    """The resolved settings of the journal, without secrets."""
    for line in read(job.journal, 0)[0][:1]:
        if isinstance(found := line.get("params"), dict):
            return found
    return {}


def data_differences(a: Job, b: Job) -> Iterator[Difference]:
    """The digest and the sizes of the data."""
    then, now = (read_json(job.path / DATA) for job in (a, b))
    for key in ("digest", "splits") if then and now else ():
        if then.get(key) != now.get(key):
            yield Difference("data", f"data {key}", pair(_short(then.get(key)), _short(now.get(key))))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {size:,}" for name, size in value.items())
    return str(value)[:12]


def package_differences(a: Job, b: Job) -> Iterator[Difference]:
    """Versions of installed packages."""
    then, now = (
        {line.partition("==")[0]: line.partition("==")[2] for line in _provenance(job, "packages", [])}
        for job in (a, b)
    )
    for name in sorted({*then, *now}) if then and now else ():
        if then.get(name) != now.get(name):
            yield Difference("packages", name, pair(then.get(name), now.get(name)))


def machine_differences(a: Job, b: Job) -> Iterator[Difference]:
    """Hardware, threads, precision, and variables of the environment that the run sets."""
    then, now = (
        {**_provenance(job, "hardware", {}), **read_json(job.path / "torch.json"), **_tags(job)}
        for job in (a, b)
    )
    for name in (*DECISIVE, "python", *TAGS):
        if name in then and name in now and then[name] != now[name]:
            yield Difference("machine", name, pair(then[name], now[name]))
    for name in sorted({*a.env, *b.env}):
        if a.env.get(name) != b.env.get(name):
            yield Difference("machine", f"environment {name}", pair(a.env.get(name), b.env.get(name)))


def _tags(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in read(job.journal, 0)[0]:
        if line["kind"] == "tags" and isinstance(values := line.get("values"), dict):
            found |= {name: values[f"regente.{name}"] for name in TAGS if f"regente.{name}" in values}
    return found


def resumed(job: Job) -> tuple[int, int]:
    """How often a run was resumed, and the last recorded step before the first time."""
    times, step, first = 0, 0, 0
    for line in read(job.journal, 0)[0]:
        if line["kind"] == "resume":
            times, first = times + 1, first if times else step
        elif line["kind"] == "metrics" and isinstance(line.get("step"), int):
            step = max(step, line["step"])
    return times, first


def resume_differences(a: Job, b: Job) -> Iterator[Difference]:
    """Whether one was resumed more often than the other."""
    then, now = resumed(a), resumed(b)
    if then[0] != now[0]:
        yield Difference("resumed", "resumed", pair(_times(a, *then), _times(b, *now)))


def _times(job: Job, times: int, step: int) -> str:
    if not times:
        return "not"
    changes = "".join(f", {key} {text}" for each in job.resumes.values() for key, text in each.items())
    return f"{times} {'time' if times == 1 else 'times'}, first after step {step}{changes}"


def not_recorded(a: Job, b: Job) -> list[str]:
    """What one of them does not record, so that nobody can tell whether it differs."""
    found = []
    for name, default in (("code", {}), ("packages", []), ("hardware", {})):
        if not all(_provenance(job, name, default) for job in (a, b)):
            found.append(name)
    commits = [_provenance(job, "code", {}) for job in (a, b)]
    if "code" not in found and not any(each.get("commit") or each.get("patch") for each in commits):
        found.append("code (no git repository)")
    return found + ["data"] * (not all(read_json(job.path / DATA) for job in (a, b)))


def _provenance(job: Job, name: str, default: Any) -> Any:
    return read_json(job.path / PROVENANCE).get(name) or default
