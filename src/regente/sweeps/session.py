"""`regente train -m`: from the command line to the table at the end."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from regente.errors import ConfigError, Problem, RegenteError, Stopped, TrackingError
from regente.jobs import console
from regente.jobs.runs import shown
from regente.sweeps.driver import Driver
from regente.sweeps.plan import Plan, check_trials, confirm_size, label, make_plan
from regente.sweeps.protocols import TrialSource
from regente.sweeps.records import make_folder, recording_lines, redactor, write_queue
from regente.sweeps.state import JobState, SweepFolder, reconcile
from regente.sweeps.table import Table, closing
from regente.training.launch import GRACE


def sweep(
    experiment: str,
    overrides: Sequence[str],
    *,
    rerun: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
) -> tuple[int, list[JobState], SweepFolder | None]:
    """Run a sweep to its end; the exit code, and the states of its jobs in their order.

    Raises:
        ConfigError: when a job cannot run; then none was started.
        Stopped: after a signal, when the jobs have saved and ended.
    """
    plan = make_plan(experiment, overrides)
    if only_failed and (plan.hydra_plugins or plan.adaptive):
        what = f"{experiment}: the sweeper decides which jobs run next; use regente sweep resume"
        raise ConfigError([Problem("regente sweep retry", what)])
    if plan.hydra_plugins:
        from regente.sweeps.hydra_plugins import sweep_by_hydra

        return sweep_by_hydra(plan, rerun=rerun, dry_run=dry_run)
    if dry_run:
        return show_jobs(plan), [], None
    source = None if plan.adaptive else checked_source(plan)
    return run(plan, source, rerun=rerun, only_failed=only_failed)


def checked_source(plan: Plan) -> TrialSource:
    """The source of a sweep that is not adaptive, with all of its jobs checked."""
    source = plan.make_source(plan.folder)
    confirm_size(plan, source, sys.argv[1:])
    check_trials(plan, source)
    return source


def checked_search(plan: Plan, folder: SweepFolder) -> TrialSource:
    """The source of a search, with its extremes checked; after an error a new folder is removed."""
    try:
        source = plan.make_source(folder.path)
        check_trials(plan, source)
        return source
    except RegenteError:
        if not (folder.path / "states").is_dir():
            shutil.rmtree(folder.path)
        raise


def run(
    plan: Plan, source: TrialSource | None, *, rerun: bool, only_failed: bool
) -> tuple[int, list[JobState], SweepFolder]:
    """Run a plan as the only driver of its sweep; `source` is None for a search."""
    first = plan.jobs[0][1].overrides if plan.jobs else plan.fixed
    composed, config = plan.composer.checked_config(first)
    folder = make_folder(plan, composed)
    folder.acquire()
    out = console.terminal(quiet=False)
    try:
        source = source or checked_search(plan, folder)
        reconcile(folder, config["monitor"]["metric"], GRACE)
        redact = redactor(plan, config)
        write_queue(plan, folder, config, redact, source.total)
        table = Table(out, plan.swept, len(plan.jobs) or source.total, config["monitor"])
        driver = Driver(plan, folder, table, config, redact, rerun=rerun, only_failed=only_failed)
        with table:
            driver.run(source)
        states = list(driver.session.values())
        left = "" if only_failed else driver.not_started(source)
        stopped = driver.signal is not None
        # before the store has everything, which may take a while
        closing(out, states, plan.swept, config["monitor"], stopped=stopped, not_started=left)
        recorded = driver.close(getattr(source, "figures", dict))
    finally:
        folder.release()
    if reason := getattr(source, "end_reason", ""):
        click.echo(reason)
    for line in recording_lines(recorded):
        click.echo(line)
    resume = f"; to go on: regente sweep resume {folder.path.name}" if stopped or left else ""
    click.echo(f"sweep {shown(folder.path)}{resume}")
    if driver.signal:
        raise Stopped(driver.signal)
    code = int(any(state.state in ("failed", "killed") for state in states))
    return code or (TrackingError.exit_code if recorded and recorded.refused else 0), states, folder


def show_jobs(plan: Plan) -> int:
    """Print the jobs with their states."""
    summary = check_sweep(plan)
    states = SweepFolder(plan.folder).load()
    for id_, trial in plan.jobs:
        state = states[id_].state if id_ in states else "queued"
        click.echo(f"#{trial.number}  {id_}  {state:<7}  {label(trial.overrides, plan.swept)}")
    click.echo(f"{summary}; none was started")
    return 0


def check_sweep(plan: Plan) -> str:
    """Check every job, or the extremes of a search; how many jobs there are.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    if plan.hydra_plugins:
        what = "only this plugin knows the jobs of the sweep; each is checked when it starts"
        raise ConfigError([Problem(" ".join(plan.hydra_plugins), what)])
    if plan.adaptive:
        with TemporaryDirectory() as folder:
            source = plan.make_source(Path(folder))
            check_trials(plan, source)
        return f"a search of {source.total or 'any number of'} jobs, its extremes checked"
    checked_source(plan)
    repeated = f", {plan.repeated} of the trials repeat another" if plan.repeated else ""
    return f"{len(plan.jobs):,} {'job' if len(plan.jobs) == 1 else 'jobs'}{repeated}"
