"""Sweeps that a launcher or sweeper plugin of Hydra runs, such as joblib: Hydra's task function starts a job."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from regente.config.compose import Composed, take_sweep
from regente.config.hydra_main import run_hydra
from regente.errors import ConfigError, Problem, Stopped
from regente.jobs import console
from regente.jobs.job import open_job
from regente.sweeps.identity import Identities
from regente.sweeps.plan import Plan
from regente.sweeps.records import Parent, job_directory, make_folder, recording_lines, redactor, write_queue
from regente.sweeps.state import JobState, SweepFolder, reconcile
from regente.sweeps.table import closing
from regente.tracking.recorder import SWEEP
from regente.training.complete import complete
from regente.training.launch import GRACE
from regente.training.prepare import check
from regente.training.run import run

SESSION = "session.txt"  # in the sweep's directory while it runs: the ids of the jobs of this command line


@dataclass(frozen=True)
class Task:
    """Hydra's task function: one job, unless it is done. A launcher may run it in another process than the sweep's."""

    experiment: str
    folder: Path
    swept: list[str]
    rerun: bool

    def __call__(self, node: Any) -> float | None:
        """The monitored metric of the best weights; None if the job failed."""
        settings: Any = HydraConfig.get()
        overrides = [override.removeprefix("++") for override in settings.overrides.task]
        OmegaConf.set_struct(node, False)
        complete(node)
        composed = Composed(self.experiment, overrides, node, settings, take_sweep(node))
        folder, id_ = SweepFolder(self.folder), Identities().of(node)
        state = folder.load().get(id_) or JobState(id_, overrides)
        with (self.folder / SESSION).open("a") as file:  # short lines of several processes do not mix
            file.write(f"{id_}\n")
        if state.state == "done" and not self.rerun:
            return state.value
        try:
            config = check(node)
        except ConfigError as error:
            reason = "; ".join(map(str, error.problems))
            click.echo(reason, err=True)
            folder.save(replace(state, state="failed", code=ConfigError.exit_code, reason=reason))
            return None
        state = folder.save(state.started())
        job = job_directory(folder, state, composed, self.swept)
        begun = time.monotonic()
        try:
            code = run(job.path, alone=False).exit_code
        except Stopped as error:
            folder.save(replace(state, state="killed", code=error.exit_code, reason=error.name))
            raise
        seconds = time.monotonic() - begun
        failed = replace(state, state="failed", code=code, seconds=seconds, reason=f"see {job.path}")
        done = None if code else state.done(folder.path, config["monitor"]["metric"])
        return folder.save(done or failed).value


def sweep_by_hydra(plan: Plan, *, rerun: bool, dry_run: bool) -> tuple[int, list[JobState], SweepFolder]:
    """Let Hydra run the sweep; its own run in MLflow and the states of its jobs are the same as for other sweeps."""
    plugins = " ".join(plan.hydra_plugins)
    if dry_run:
        raise ConfigError(
            [Problem("--dry-run", f"only {plugins} knows the jobs of the sweep; leave --dry-run out")]
        )
    if own := [key for key in ("zip", "trials_file") if plan.base.sweep[key]]:
        raise ConfigError([Problem(f"sweep.{own[0]}", f"{plugins} has no such setting; leave it out")])
    if "hydra/sweeper" not in plugins and plan.adaptive:
        raise ConfigError(
            [Problem(plugins, "cannot run this search; use hydra/launcher=local, ray or slurm")]
        )
    config = check(plan.first.node)
    folder = make_folder(plan, plan.first)
    folder.acquire()
    status = 0
    try:
        reconcile(folder, config["monitor"]["metric"], GRACE)
        write_queue(plan, folder, config, redactor(plan, config), None)
        parent = Parent(open_job(folder.path), config, plan.swept)
        parent.recorder.start()
        os.environ |= parent.environment
        (folder.path / SESSION).write_text("")
        try:
            _run_hydra(plan, Task(plan.experiment, folder.path, plan.swept, rerun))
        except Stopped as error:
            status = error.exit_code
        states, ids = folder.load(), (folder.path / SESSION).read_text().split()
        session = [states[id_] for id_ in dict.fromkeys(ids) if id_ in states]
        recorded = parent.finish(session, status != 0, {})
    finally:
        os.environ.pop(SWEEP, None)
        (folder.path / SESSION).unlink(missing_ok=True)
        folder.release()
    closing(console.terminal(quiet=False), session, plan.swept, config["monitor"], stopped=status != 0)
    for line in recording_lines(recorded):
        click.echo(line)
    return status or int(any(state.state in ("failed", "killed") for state in session)), session, folder


def _run_hydra(plan: Plan, task: Task) -> None:
    basic = [] if "hydra/launcher" in " ".join(plan.hydra_plugins) else ["hydra/launcher=basic"]
    # Hydra's sweeper writes a multirun.yaml with all overrides, secrets included: not into the project
    with TemporaryDirectory() as scratch:
        words = [*plan.overrides, *basic, f"hydra.sweep.dir={scratch}"]
        run_hydra(plan.experiment, words, ["--multirun"], task)
