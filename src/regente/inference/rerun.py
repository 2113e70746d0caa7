"""`regente rerun`: what is different from the time of a run, and whether its steps give the same numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regente.config.check import check
from regente.config.interpolation import references
from regente.data.protocols import SupportsIdentity
from regente.errors import ConfigError, Problem, first_of
from regente.jobs.job import DATA, PROVENANCE, Job, freeze, read_json
from regente.jobs.runs import find_job, run_id, shown
from regente.jobs.trace_file import TRACE, read_trace
from regente.jobs.trust import inside, read_config, require_known_env, trusted_overrides
from regente.tracking import provenance
from regente.tracking.restore import restore
from regente.training.frozen import set_environment
from regente.training.session import imports, quiet_libraries

CLOSE = 1e-5  # of a loss, relative above 1: other threads or another CPU may change so much
STEPS = 300  # that are verified by default


def recorded(name: str, project: Path, scratch: Path) -> tuple[Job, dict[str, Any]]:
    """A run's job and config. If the job directory is gone, it is restored in `scratch` from MLflow's artifacts.

    Raises:
        ConfigError: when the recorded config cannot be trusted, or is invalid for the code of today.
        TrackingError: when the name matches no run, or several.
    """
    job = restore(name, project, scratch) or find_job(name, project)
    require_known_env(job)
    set_environment(job.env)
    inside(project / "runs", job.experiment, f"{shown(job.path)}/job.json")
    config = read_config(job, project)
    if problems := check(config, shared=references(job.config)):
        raise ConfigError(problems)
    return job, config


def freeze_again(job: Job, name: str) -> Job:
    """A new job of the same config, which records which run it repeats."""
    return freeze(
        job.config,
        Path("runs") / job.experiment,
        experiment=job.experiment,
        overrides=trusted_overrides(job),
        command=["regente", "rerun", name],
        choices=job.choices,
        env=job.env,
        rerun_of=run_id(job.path) or shown(job.path),
    )


def differences(job: Job, config: dict[str, Any], project: Path) -> Iterator[str]:
    """A line for each difference in code, packages, data and machine, and for what was not recorded."""
    then = read_json(job.path / PROVENANCE)
    if then:
        yield from _code(then.get("code") or {}, project)
        yield from _packages(then.get("packages") or [])
    else:
        yield "code, packages: not recorded (tracking=none keeps neither)"
    yield from _machine(
        {**(then.get("hardware") or {}), **read_json(job.path / "torch.json")},
        str(config["trainer"].get("accelerator", "auto")),
    )
    yield from _data(read_json(job.path / DATA), config)


def _code(then: dict[str, Any], project: Path) -> Iterator[str]:
    from regente.config.redaction import Redactor

    now = provenance.code(project, Redactor().text).facts()
    if not now["commit"] and not then.get("commit"):
        yield "code: unknown, it is not in a git repository; --verify compares the results"
    elif now["commit"] != then.get("commit"):
        yield f"code: commit {str(then.get('commit'))[:9]} then, {str(now['commit'])[:9]} now"
    if now["patch"] != then.get("patch"):
        had, has = ("with" if each else "without" for each in (then.get("patch"), now["patch"]))
        yield f"code: {had} uncommitted changes then, {'other ones' if had == has else has + ' any'} now"


def _packages(then: Sequence[str]) -> Iterator[str]:
    before, now = (
        {line.partition("==")[0]: line.partition("==")[2] for line in lines}
        for lines in (then, provenance.packages().splitlines())
    )
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if changed:
        words = [f"{name} {before.get(name, 'none')} then, {now.get(name, 'none')} now" for name in changed]
        yield f"packages: {first_of(words, separator='; ')}"


def _machine(then: dict[str, Any], accelerator: str) -> Iterator[str]:
    from regente.training.performance import tune_process

    now: dict[str, Any] = provenance.hardware()  # before the GPUs are hidden from a job on the CPU
    tune_process(accelerator)
    now |= provenance.torch_facts()
    late = {"cudnn", "torch_gpus"} - set(now)  # which only a process that has begun to use a GPU knows
    for key in [*provenance.DECISIVE, "python"]:
        if key in then and key not in late and then[key] != now.get(key):
            yield f"machine: {key} {then[key]} then, {now.get(key, 'none')} now"


def _data(then: dict[str, Any], config: dict[str, Any]) -> Iterator[str]:
    from hydra.utils import instantiate

    data: Any = instantiate(config["data"], _convert_="all")
    has_identity = isinstance(data, SupportsIdentity)
    if not has_identity:
        return
    data.prepare_data()
    data.setup("fit")
    now = data.identity()
    if not then:
        yield "data: not recorded"
    elif now["digest"] != then.get("digest"):
        yield f"data: digest {then.get('digest')} then, {now['digest']} now ({now['source']})"
    elif now["splits"] != then.get("splits"):
        yield f"data: splits {then.get('splits')} then, {now['splits']} now"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison of two traces, and the exit code for it."""

    text: str
    exit_code: int


def verify(job: Job, config: dict[str, Any], steps: int | None) -> Comparison:
    """Repeat the first steps of the training without tracking, and compare losses and weights with the run's trace.

    Raises:
        ConfigError: when the run has no trace, or used several processes.
    """
    from regente.jobs.hardware import world_size
    from regente.training.callbacks.trace import Replay

    lines = [line for line in read_trace(job.path / TRACE) if line["step"] <= (steps or STEPS)]
    if not lines:
        what = f"there is no {TRACE}, or none of the first {steps or STEPS} steps; regente rerun without --verify runs all of it"
        raise ConfigError([Problem(shown(job.path), what)])
    if world_size(config["trainer"]) > 1:
        what = "--verify repeats runs of one process only; regente rerun without it runs all of it"
        raise ConfigError([Problem("trainer.devices", what)])
    with imports():
        from regente.training.finders import found_before, with_found
        from regente.training.replay import replay

    if found := found_before(job):
        config = with_found(job, found)
    with TemporaryDirectory() as folder, quiet_libraries():
        again = Replay(lines)
        replay(replace(job, path=Path(folder)), config, again)
    return compare(lines, again.lines)


def compare(then: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> Comparison:
    """Compare two traces at the steps of the first."""
    found = {(line["step"], line.get("epoch")): line for line in now}
    other: int | None = None  # the first step that is not bitwise equal
    for line in then:
        again = found.get((line["step"], line.get("epoch")), {})
        for step, name, old, new in pairs(line, again):
            if not close(old, new):
                return Comparison(f"differs since step {step}: {name} {old!r} then, {new!r} now", 1)
            other = (
                step if other is None and repr(old) != repr(new) else other
            )  # repr: NaN is not equal to itself
        if other is None and "weights" in line and line["weights"] != again.get("weights"):
            other = line["step"]
    steps = f"of {then[-1]['step']} steps"
    valued = sum(bool(line.get("losses") or line.get("metrics")) for line in then)
    if not valued:  # a task that returns no loss
        points = f"weights at {len(then)} points {steps}; the task returns no losses to compare"
        what = "equal to the bit" if other is None else f"differs since step {other}"
        return Comparison(f"{what}: {points}", int(other is not None))
    points = f"losses at {valued} points {steps}"
    if other is None:
        return Comparison(f"equal to the bit: weights, and {points}", 0)
    return Comparison(f"equal within {CLOSE:g}: {points}; other bits since step {other}", 0)


def pairs(then: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[int, str, Any, Any]]:
    """Step, name, value then and value now: of each loss, and of each metric at the end of an epoch."""
    losses, again = then.get("losses", []), now.get("losses", [])
    first = then["step"] - len(losses) + 1
    for place, value in enumerate(losses):
        yield first + place, "loss", value, again[place] if len(again) == len(losses) else None
    for name, value in then.get("metrics", {}).items():
        yield then["step"], name, value, now.get("metrics", {}).get(name)


def close(a: Any, b: Any) -> bool:
    """Whether two numbers differ by no more than rounding does; NaN is close to NaN."""
    if not (isinstance(a, int | float) and isinstance(b, int | float)):
        return False
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE) or (math.isnan(a) and math.isnan(b))
