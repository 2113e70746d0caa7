"""`regente train -m`: from the words of a command line to the table at the end."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from regente.errors import ConfigError, Problem, RegenteError, Stopped
from regente.jobs import console
from regente.jobs.runs import shown
from regente.sweeps.driver import Driver
from regente.sweeps.plan import Plan, ask, fill_plan, plan, varied
from regente.sweeps.protocols import TrialSource
from regente.sweeps.records import make_folder, redactor, write_queue
from regente.sweeps.state import JobState, SweepFolder, settle
from regente.sweeps.table import Table, closing
from regente.training.launch import GRACE


def sweep(
    experiment: str,
    overrides: Sequence[str],
    *,
    again: bool = False,
    only_failed: bool = False,
    dry_run: bool = False,
) -> tuple[int, list[JobState], SweepFolder | None]:
    """Run a sweep to its end; the exit code, and what became of its jobs in their order.

    Raises:
        ConfigError: when a job cannot run; then none was started.
        Stopped: after a signal, when the jobs have saved and ended.
    """
    what = plan(experiment, overrides)
    if only_failed and (what.hydra_plugins or what.adaptive):
        words = f"{what.experiment}: what runs next is the sweeper's to say; regente sweep resume goes on"
        raise ConfigError([Problem("regente sweep retry", words)])
    if what.hydra_plugins:
        from regente.sweeps.hydra_plugins import sweep_by_hydra

        return sweep_by_hydra(what, again=again, dry_run=dry_run)
    if dry_run:
        return show(what), [], None
    if what.adaptive:
        return run(what, None, again=again, only_failed=only_failed)
    return run(what, listed(what), again=again, only_failed=only_failed)


def listed(what: Plan) -> TrialSource:
    """The source of a sweep whose jobs are known, all of them checked."""
    source = what.make_source(what.folder)
    ask(what, source, sys.argv[1:])
    fill_plan(what, source)
    return source


def searched(what: Plan, folder: SweepFolder) -> TrialSource:
    """The source of a search, checked as far as it can be; a folder that was made for it in vain goes away."""
    try:
        source = what.make_source(folder.path)
        fill_plan(what, source)
        return source
    except RegenteError:
        if not (folder.path / "states").is_dir():
            shutil.rmtree(folder.path)
        raise


def run(
    what: Plan, source: TrialSource | None, *, again: bool, only_failed: bool
) -> tuple[int, list[JobState], SweepFolder]:
    """Run what was planned, as the one driver of its sweep."""
    first = what.jobs[0][1].overrides if what.jobs else what.fixed
    composed, config = what.composer.checked_config(first)
    folder = make_folder(what, composed)
    folder.acquire()
    out = console.terminal(quiet=False)
    try:
        source = source or searched(what, folder)
        settle(folder, config["monitor"]["metric"], GRACE)
        redact = redactor(what, config)
        write_queue(what, folder, config, redact, source.total)
        table = Table(out, what.swept, len(what.jobs) or source.total, config["monitor"])
        driver = Driver(what, folder, table, config, redact, again=again, only_failed=only_failed)
        with table:
            driver.run(source)
        states = list(driver.session.values())
        recorded = driver.close(getattr(source, "figures", dict))
    finally:
        folder.release()
    left = "" if only_failed else driver.left(source)
    closing(out, states, what.swept, config["monitor"], stopped=driver.stopped is not None, left=left)
    if why := getattr(source, "why", ""):
        click.echo(why)
    if recorded and recorded.run_id:
        click.echo(f"sweep {recorded.run_id} in MLflow; the comparison: regente ui")
    further = f"; regente sweep resume {folder.path.name} goes on" if driver.stopped or left else ""
    click.echo(f"sweep {shown(folder.path)}{further}")
    if driver.stopped:
        raise Stopped(driver.stopped)
    return int(any(state.state in ("failed", "killed") for state in states)), states, folder


def show(what: Plan) -> int:
    """Print the jobs, and which of them are done."""
    told = look(what)
    known = SweepFolder(what.folder).load()
    for id_, trial in what.jobs:
        state = known[id_].state if id_ in known else "queued"
        click.echo(f"#{trial.number}  {id_}  {state:<7}  {' '.join(varied(trial.overrides, what.swept))}")
    click.echo(f"{told}; none was started")
    return 0


def look(what: Plan) -> str:
    """Check every job, or of a search what can be; how many there are.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    if what.hydra_plugins:
        raise ConfigError([Problem("-m", f"{' '.join(what.hydra_plugins)} alone knows the jobs")])
    if what.adaptive:
        with TemporaryDirectory() as folder:
            source = what.make_source(Path(folder))
            fill_plan(what, source)
        return f"a search of {source.total or 'any number of'} jobs, its ends checked"
    listed(what)
    repeated = f", {what.repeated} of the trials repeat another" if what.repeated else ""
    return f"{len(what.jobs):,} jobs{repeated}"
