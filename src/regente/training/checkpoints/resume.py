"""Prepare the job of a run that is resumed, or of a new run that starts from its weights. Imports nothing heavy."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regente.config.compose import recompose
from regente.config.interpolation import resolve
from regente.errors import CheckpointError, ConfigError, Problem
from regente.jobs import checkpoint_files
from regente.jobs.job import ARROW, RESULT, Job, claim, freeze, open_job, refreeze
from regente.jobs.result import read_result
from regente.jobs.runs import find, find_job, shown
from regente.jobs.trust import (
    inside,
    read_config,
    require_known_env,
    require_trusted_config,
    require_trusted_job,
    trusted_overrides,
)
from regente.tracking.recorder import attempts, parameters
from regente.training.prepare import check, without_secrets

# Settings that may change without --allow: they do not change what a step does to the weights
MAY_CHANGE = (
    *(
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.min_epochs",
        "trainer.max_time",
        "trainer.max_minutes",
    ),
    *("trainer.log_every_n_steps", "trainer.limit_test_batches", "trainer.profiler", "trainer.max_restarts"),
    *(
        "callbacks.",
        "loggers.",
        "data.on_device",
        "tracking.checkpoints",
        "tracking.log_model",
        "trainer.on_nan",
        "trainer.on_oom",
    ),
)
# Settings that must not change, with the reason
MUST_NOT_CHANGE = {
    "data.batch_size": "the position in the epoch is counted in batches",
    "trainer.accumulate_grad_batches": "the position in the epoch is counted in its steps",
    "tracking.uri": "the run continues in the same MLflow run",
    "tracking.experiment": "the run continues in the same MLflow run",
    "init_from": "the run has weights already",
}


@dataclass(frozen=True)
class PreparedRun:
    """A job that is ready to run, with its config; `finished`: a line that says why there is nothing to run."""

    job: Job
    config: dict[str, Any]
    finished: str = ""


def job_of(name: str) -> Job:
    """The job of a run that is given by its name, or by the path of one of its resume states.

    Raises:
        CheckpointError: when the path is not that of an undamaged resume state.
        TrackingError: when the name fits no run, or several.
    """
    path = Path(name)
    if path.suffix == ".ckpt" or path.is_file():
        return open_job(_resume_state(path).parent.parent)
    return find_job(name, Path.cwd())


def _resume_state(path: Path) -> Path:
    """The resume state at a path, which may be the link `last.ckpt`."""
    if what := checkpoint_files.damage(path):
        states = checkpoint_files.resume_states(path.parent.parent / "resume")
        newest = next((each for each in states if not checkpoint_files.damage(each)), None)
        hint = f"newest undamaged one: {shown(newest)}" if newest else "give the name of a run"
        raise CheckpointError(f"{path}: {what}; {hint}")
    found = path.resolve()
    is_state = checkpoint_files.RESUME_STATE.fullmatch(found.name) is not None
    if not is_state or not (found.parent.parent / "job.json").is_file():
        given = f"init_from={path}" if "=" not in str(path) else f"'init_from=\"{path}\"'"
        what = "holds weights only, a run cannot be resumed from it"
        raise CheckpointError(f"{path}: {what}; regente train EXPERIMENT {given}")
    return found


def prepare_resume(name: str, overrides: Sequence[str], allow: Collection[str] = ()) -> PreparedRun:
    """Prepare the job of an interrupted run; `allow`: dotted keys of settings that may change.

    Raises:
        ConfigError: when the run is running, or a setting changes that must not.
        CheckpointError: when all of its resume states are damaged.
    """
    job = job_of(name)
    job = require_trusted_job(job, Path.cwd())
    claim(job).close()
    node = recompose(job.config, overrides, job.experiment, trusted_overrides(job))
    config, before = _checked(job, node), resolve(job.config)
    changes = _changes(before, config)
    _require_allowed(before, config, changes, allow)
    if finished := _finished(job, before, config):
        return PreparedRun(job, config, finished)
    if Path(name).suffix == ".ckpt":
        _remove_newer_states(job, Path(name).resolve())
    state, _ = checkpoint_files.newest_undamaged(job.resume_states)
    if state is None and attempts(job) and (job.path / RESULT).is_file():
        targets = [str(node["_target_"]) for node in before["callbacks"].values() if node]
        if not any(target.endswith("ResumeStates") for target in targets):
            what = "has no resume states; train with callbacks=default to keep them"
            raise CheckpointError(f"{shown(job.path)}: {what}")
    (job.path / RESULT).unlink(missing_ok=True)  # the run is no longer finished
    if changes:
        text, redact = without_secrets(OmegaConf.to_yaml(node))
        old_and_new = {key: redact(ARROW.join(pair)) for key, pair in changes.items()}
        job = refreeze(job, text, attempts(job), old_and_new)
    return PreparedRun(job, config)


def prepare_fork(name: str, overrides: Sequence[str]) -> PreparedRun:
    """Make a job with the config of a run under overrides, which starts from the best weights of that run."""
    run = find(name, Path.cwd())
    require_known_env(run.job)
    inside(Path.cwd() / "runs", run.job.experiment, f"{shown(run.job.path)}/job.json")
    read_config(run.job, Path.cwd())
    node = recompose(run.job.config, overrides, run.job.experiment, trusted_overrides(run.job))
    node.init_from = str(run.checkpoint)
    config = _checked(run.job, node)
    text, redact = without_secrets(OmegaConf.to_yaml(node))
    job = freeze(
        text,
        Path("runs") / run.job.experiment,
        experiment=run.job.experiment,
        overrides=[*trusted_overrides(run.job), *map(redact, overrides)],
        command=["regente", "fork", name, *map(redact, overrides)],
        choices=run.job.choices,
        env=run.job.env,
    )
    return PreparedRun(job, config)


def _checked(job: Job, node: DictConfig) -> dict[str, Any]:
    config = check(node)
    require_trusted_config(job, config, Path.cwd())
    return config


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Old and new value of each setting that differs, by dotted key."""
    old, new = (parameters({**config, "tracking": None}, {}) for config in (before, after))
    for flat, config in ((old, before), (new, after)):
        flat |= {f"tracking.{key}": str(value) for key, value in config["tracking"].items()}
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key, "none"), new.get(key, "none")) for key in keys if old.get(key) != new.get(key)}


def _require_allowed(
    before: dict[str, Any],
    config: dict[str, Any],
    changes: dict[str, tuple[str, str]],
    allow: Collection[str],
) -> None:
    problems = []
    for key, (old, new) in changes.items():
        if key in MUST_NOT_CHANGE:
            problems.append(
                Problem(
                    f"{key}={new}",
                    f"cannot change from {old}, {MUST_NOT_CHANGE[key]}; regente fork starts a new run",
                )
            )
        elif key.startswith(("optimizer.groups.", "optimizer.layer_decay")) and not _keeps_groups(
            key, old, new
        ):
            what = f"cannot change from {old}, the state of the optimizer has its groups; regente fork starts a new run"
            problems.append(Problem(f"{key}={new}", what))
        elif not key.startswith(MAY_CHANGE) and key not in allow:
            what = f"changes the steps that follow, it was {old}; to change it, add --allow {key}"
            problems.append(Problem(f"{key}={new}", what))
    onecycle = str(config["scheduler"].get("_target_")).endswith("OneCycleLR")
    if onecycle and (epochs := changes.get("trainer.max_epochs")):
        what = f"cannot change from {epochs[0]}, the schedule ends with it; regente fork starts a new run"
        problems.append(Problem(f"trainer.max_epochs={epochs[1]}", what))
    if problems:
        raise ConfigError(problems)


def _keeps_groups(key: str, old: str, new: str) -> bool:
    """Whether another value of this setting of a parameter group leaves its parameters, and has a factor to the old one."""
    *_, last = key.split(".")
    rate = last in ("lr", "lr_factor")
    return (
        key.count(".") == 3
        and last not in ("names", "dims")
        and "none" not in (old, new)
        and not (rate and float(old) == 0)
    )


def _finished(job: Job, before: dict[str, Any], config: dict[str, Any]) -> str:
    """A line that says that the run is finished, empty if it is not."""
    result = read_result(job.path)
    limits = [
        (key, before["trainer"].get(key), config["trainer"].get(key))
        for key in ("max_epochs", "max_steps", "max_minutes")
    ]
    if not result or any(old != new for _, old, new in limits):
        return ""
    most = before["trainer"].get("max_epochs")
    return (
        f"nothing to do: {shown(job.path)} ended at epoch {result.get('epochs')} of {most}; "
        f"to train longer: trainer.max_epochs={int(most or result.get('epochs', 0)) + 10}"
    )


def _remove_newer_states(job: Job, state: Path) -> None:
    newest = checkpoint_files.step_and_stage(state)
    for each in checkpoint_files.resume_states(job.resume_states):
        if checkpoint_files.step_and_stage(each) > newest:
            each.unlink()
