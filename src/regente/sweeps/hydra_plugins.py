"""Sweeps that a plugin of Hydra runs, a launcher such as joblib or a sweeper: its task function starts a worker."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from regente.config.check import check
from regente.config.compose import Composed, run_hydra, take_sweep
from regente.config.interpolation import resolve
from regente.errors import ConfigError, Problem, Stopped
from regente.jobs import console
from regente.jobs.job import Job, open_job, read_json
from regente.sweeps.identity import Identities
from regente.sweeps.plan import Plan
from regente.sweeps.records import Parent, frozen, make_folder, redactor, write_queue
from regente.sweeps.state import JobState, SweepFolder, result_fields, settle
from regente.sweeps.table import closing
from regente.training.complete import complete
from regente.training.launch import GRACE
from regente.training.run import run


@dataclass(frozen=True)
class Task:
    """Hydra's task function: one job, unless it is done. It may run in another process than the sweep."""

    experiment: str
    folder: Path
    swept: list[str]
    again: bool
    session: str  # of this command line

    def __call__(self, node: Any) -> float | None:
        """The monitored metric of the best weights, or nothing if the job failed."""
        settings: Any = HydraConfig.get()
        overrides = [override.removeprefix("++") for override in settings.overrides.task]
        OmegaConf.set_struct(node, False)
        complete(node)
        composed = Composed(self.experiment, overrides, node, settings, take_sweep(node))
        folder = SweepFolder(self.folder)
        id_ = Identities().of(node)
        before = folder.load().get(id_) or JobState(id_, overrides)
        note(self.folder, self.session, id_)
        if before.state == "done" and not self.again:
            return before.value
        config = resolve(node)
        if problems := check(config):
            text = "; ".join(map(str, problems))
            click.echo(text, err=True)
            folder.save(replace(before, state="failed", code=ConfigError.exit_code, reason=text))
            return None
        return self._run(composed, config, folder, before)

    def _run(
        self, composed: Composed, config: dict[str, Any], folder: SweepFolder, before: JobState
    ) -> float | None:
        state = folder.save(before.started())
        job = frozen(folder, state, composed, self.swept)
        begun = time.monotonic()
        try:
            code = run(job.path, alone=False).exit_code
        except Stopped as error:
            folder.save(replace(state, state="killed", code=error.exit_code, reason=error.name))
            raise
        state = replace(state, code=code, seconds=time.monotonic() - begun)
        folder.save(ended(state, job, config["monitor"]["metric"]))
        return ended(state, job, config["monitor"]["metric"]).value


def ended(state: JobState, job: Job, metric: str) -> JobState:
    """What a job's result says of it."""
    result = read_json(job.path / "result.json")
    if state.code == 0 and result:
        return replace(state, state="done", **result_fields(result, metric))
    return replace(state, state="failed", reason=f"see {job.path}")


def note(folder: Path, session: str, id_: str) -> None:
    """Append a job to those of a session."""
    file = os.open(folder / f"session-{session}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{id_}\n".encode())
    os.close(file)


def sweep_by_hydra(what: Plan, *, again: bool, dry_run: bool) -> tuple[int, list[JobState], SweepFolder]:
    """Let Hydra run the sweep; its own parent run and the states of its jobs are kept as for any other."""
    if dry_run:
        raise ConfigError([Problem("--dry-run", f"{' '.join(what.hydra_plugins)} alone knows the jobs")])
    if own := [key for key in ("zip", "trials_file") if what.base.sweep[key]]:
        raise ConfigError([Problem(f"sweep.{own[0]}", f"{' '.join(what.hydra_plugins)} knows no such thing")])
    if what.our_search:
        launchers = "hydra/launcher=local, ray or slurm"
        raise ConfigError([Problem(" ".join(what.hydra_plugins), f"cannot run this search; use {launchers}")])
    config = resolve(what.first.node)
    if problems := check(config):
        raise ConfigError(problems)
    folder = make_folder(what, what.first)
    folder.acquire()
    session = f"{time.time_ns():x}"
    status: int | None = None
    try:
        settle(folder, config["monitor"]["metric"], GRACE)
        write_queue(what, folder, config, redactor(what, config), None)
        parent = Parent(open_job(folder.path), config, what.swept)
        parent.recording.start()
        task = Task(what.experiment, folder.path, what.swept, again, session)
        try:
            _run_hydra(what, task)
        except Stopped as error:
            status = error.exit_code
        states = _session(folder, session)
        recorded = parent.finish(states, status is not None, {})
    finally:
        folder.release()
    closing(console.terminal(quiet=False), states, what.swept, config["monitor"], stopped=status is not None)
    if recorded.run_id:
        click.echo(f"sweep {recorded.run_id} in MLflow; the comparison: regente ui")
    return status or int(any(state.state in ("failed", "killed") for state in states)), states, folder


def _run_hydra(what: Plan, task: Task) -> None:
    basic = [] if "hydra/launcher" in " ".join(what.hydra_plugins) else ["hydra/launcher=basic"]
    # Hydra's sweeper leaves a multirun.yaml with all overrides in the clear: not in the project
    with TemporaryDirectory() as scratch:
        run_hydra(
            what.experiment, [*what.overrides, *basic, f"hydra.sweep.dir={scratch}"], ["--multirun"], task
        )


def _session(folder: SweepFolder, session: str) -> list[JobState]:
    file, states = folder.path / f"session-{session}", folder.load()
    ids = dict.fromkeys(file.read_text().split()) if file.is_file() else {}
    file.unlink(missing_ok=True)
    return [states[id_] for id_ in ids if id_ in states]
