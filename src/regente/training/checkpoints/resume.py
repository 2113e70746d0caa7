"""Going on with a run that was interrupted, or beginning another one with its weights. Imports nothing heavy."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regente.config.check import check
from regente.config.compose import recompose
from regente.config.environment import env_references, externalize
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.errors import CheckpointError, ConfigError, Problem
from regente.jobs import checkpoint_files
from regente.jobs.job import ARROW, Job, claim, freeze, open_job, read_json, refreeze
from regente.jobs.runs import find, find_job, shown
from regente.jobs.trust import inside, read_config, require_known_env, require_trusted, require_trusted_job
from regente.tracking.recorder import attempts, parameters

# What may change without being allowed by name: it leaves the weights of a step as they were
FREE = (
    *(
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.min_epochs",
        "trainer.max_time",
        "trainer.max_minutes",
    ),
    *("trainer.log_every_n_steps", "trainer.limit_test_batches", "trainer.profiler", "trainer.max_restarts"),
    *("callbacks.", "data.on_device", "tracking.checkpoints", "tracking.log_model", "on_nan", "on_oom"),
)
# What cannot change: the position in the epoch is counted in it, or the run is recorded by it
FIXED = {
    "data.batch_size": "the position in the epoch is counted in batches",
    "trainer.accumulate_grad_batches": "the position in the epoch is counted in its steps",
    "tracking.uri": "it goes on in the same MLflow run",
    "tracking.experiment": "it goes on in the same MLflow run",
    "init_from": "it has weights already",
}


@dataclass(frozen=True)
class Next:
    """What is to be run: a job with its config; or nothing, for the reason in `done`."""

    job: Job
    config: dict[str, Any]
    done: str = ""


def named(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """The run that the words of `train` ask to go on with, by `resume=RUN` or as a job directory, and the overrides.

    Raises:
        ConfigError: when they name an experiment too, and it is not that run's.
    """
    given = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    rest = [word for word in words if not word.startswith("resume=")]
    if given:
        experiment = rest.pop(0) if rest and "=" not in rest[0] and rest[0][:1] not in "+~-" else ""
        name = given[-1]
        if experiment and (job := job_of(name)).experiment != experiment:
            what = f"a run of {job.experiment}, not of {experiment}; leave {experiment} out"
            raise ConfigError([Problem(f"resume={name}", what)])
        return name, rest
    if rest and (Path(rest[0]) / "job.json").is_file():
        return rest[0], rest[1:]
    return None


def job_of(name: str) -> Job:
    """The job that a run's name, or the path of one of its states, means.

    Raises:
        CheckpointError: when it is the path of something else than a state to go on from.
        TrackingError: when no run is meant, or several are.
    """
    path = Path(name)
    if path.suffix == ".ckpt" or path.is_file():
        return open_job(_state(path).parent.parent)
    return find_job(name, Path.cwd())


def _state(path: Path) -> Path:
    """The file, if it is a whole state of a run; `last.ckpt` leads to one."""
    what = checkpoint_files.damage(path)
    whole = path.resolve()
    home = whole.parent.parent
    if what:
        folder = path.parent.parent / "resume"
        newest = next(
            (each for each in checkpoint_files.points(folder) if not checkpoint_files.damage(each)), None
        )
        hint = f"newest whole one: {shown(newest)}" if newest else "name a run; regente train makes one"
        raise CheckpointError(f"{path}: {what}; {hint}")
    if checkpoint_files.POINT.fullmatch(whole.name) is None or not (home / "job.json").is_file():
        given = f"init_from={path}" if "=" not in str(path) else f"'init_from=\"{path}\"'"
        what = "weights alone, not the state of a run to go on from"
        raise CheckpointError(f"{path}: {what}; regente train EXPERIMENT {given}")
    return whole


def resume(name: str, overrides: Sequence[str], allow: Collection[str] = ()) -> Next:
    """Get the job of a run ready to go on where it was interrupted.

    Raises:
        ConfigError: when it runs, or something changes that must not.
        CheckpointError: when none of its states is whole.
    """
    job = job_of(name)
    require_trusted_job(job, Path.cwd())
    claim(job).close()
    node = recompose(job.config, overrides, job.experiment, job.overrides)
    config, before = _checked(node), resolve(job.config)
    changes = _changes(before, config)
    _refuse(before, config, changes, allow)
    if done := _done(job, before, config):
        return Next(job, config, done)
    if Path(name).suffix == ".ckpt":
        _go_back(job, Path(name).resolve())
    point, _ = checkpoint_files.newest_valid(job.resume_states)
    if point is None and attempts(job):
        kept = [
            node
            for node in before["callbacks"].values()
            if node and str(node["_target_"]).endswith("ResumeStates")
        ]
        if not kept and (job.path / "result.json").is_file():
            raise CheckpointError(
                f"{shown(job.path)}: kept no states to go on from; train with callbacks=default"
            )
    (job.path / "result.json").unlink(missing_ok=True)  # it is no longer done
    if changes:
        text, secrets = externalize(OmegaConf.to_yaml(node))
        os.environ.update(secrets)
        redact = Redactor(secrets.values(), env_references(text))
        was_to_be = {key: redact.text(ARROW.join(pair)) for key, pair in changes.items()}
        job = refreeze(job, text, attempts(job), was_to_be)
    return Next(job, config)


def fork(name: str, overrides: Sequence[str]) -> Next:
    """Make a job of a run's config under overrides, which begins with the run's best weights."""
    run = find(name, Path.cwd())
    require_known_env(run.job)
    inside(Path.cwd() / "runs", run.job.experiment)
    read_config(run.job, Path.cwd())
    node = recompose(run.job.config, overrides, run.job.experiment, run.job.overrides)
    node.init_from = str(run.checkpoint)
    config = _checked(node)
    text, secrets = externalize(OmegaConf.to_yaml(node))
    os.environ.update(secrets)
    redact = Redactor(secrets.values(), env_references(text))
    job = freeze(
        text,
        Path("runs") / run.job.experiment,
        experiment=run.job.experiment,
        overrides=[*run.job.overrides, *map(redact.text, overrides)],
        command=["regente", "fork", name, *map(redact.text, overrides)],
        choices=run.job.choices,
        env=run.job.env,
    )
    return Next(job, config)


def _checked(node: DictConfig) -> dict[str, Any]:
    config = resolve(node)
    if problems := check(config):
        raise ConfigError(problems)
    require_trusted(config, Path.cwd())
    return config


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Old and new value of what differs, by dotted key."""
    old, new = (parameters({**config, "tracking": None}, {}) for config in (before, after))
    for flat, config in ((old, before), (new, after)):
        flat |= {f"tracking.{key}": str(value) for key, value in config["tracking"].items()}
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key, "none"), new.get(key, "none")) for key in keys if old.get(key) != new.get(key)}


def _refuse(
    before: dict[str, Any],
    config: dict[str, Any],
    changes: dict[str, tuple[str, str]],
    allow: Collection[str],
) -> None:
    problems = []
    for key, (old, new) in changes.items():
        if key in FIXED:
            problems.append(
                Problem(f"{key}={new}", f"cannot change from {old}, {FIXED[key]}; regente fork begins anew")
            )
        elif not key.startswith(FREE) and key not in allow:
            what = f"changes the steps that follow, it was {old}; if that is meant, add --allow {key}"
            problems.append(Problem(f"{key}={new}", what))
    onecycle = str(config["scheduler"].get("_target_")).endswith("OneCycleLR")
    if onecycle and (epochs := changes.get("trainer.max_epochs")):
        what = f"cannot change from {epochs[0]}, the schedule ends with it; regente fork begins anew"
        problems.append(Problem(f"trainer.max_epochs={epochs[1]}", what))
    if problems:
        raise ConfigError(problems)


def _done(job: Job, before: dict[str, Any], config: dict[str, Any]) -> str:
    """Why there is nothing to do, if that is so."""
    result = read_json(job.path / "result.json")
    limits = [
        (key, before["trainer"].get(key), config["trainer"].get(key))
        for key in ("max_epochs", "max_steps", "max_minutes")
    ]
    if not result or any(old != new for _, old, new in limits):
        return ""
    most = before["trainer"].get("max_epochs")
    return (
        f"nothing to do: {shown(job.path)} ended at epoch {result['epochs']} of {most}; "
        f"to go on: trainer.max_epochs={int(most or result['epochs']) + 10}"
    )


def _go_back(job: Job, point: Path) -> None:
    """Forget the states that are newer than the one that is asked for."""
    for each in checkpoint_files.points(job.resume_states):
        if checkpoint_files.place(each) > checkpoint_files.place(point):
            checkpoint_files.remove(each)
