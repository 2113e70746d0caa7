"""`regente train -m`: from the words of a command line to the table at the end."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from regente import display
from regente.errors import Stopped
from regente.launch import GRACE
from regente.redact import Redactor, env_references, secret_values
from regente.sweep.driver import Driver
from regente.sweep.plan import Plan, ask, fill_plan, plan, varied
from regente.sweep.protocols import Source
from regente.sweep.records import make_folder
from regente.sweep.state import JobState, SweepFolder, settle
from regente.sweep.table import Table, closing


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
    if what.foreign:
        from regente.sweep.foreign import sweep_by_hydra

        return sweep_by_hydra(what, again=again, dry_run=dry_run)
    source = what.make_source()
    if not source.adaptive:
        ask(what, source, sys.argv[1:])
        fill_plan(what, source)
    if dry_run:
        show(what, source)
        return 0, [], None
    return run(what, source, again=again, only_failed=only_failed)


def run(
    what: Plan, source: Source, *, again: bool, only_failed: bool
) -> tuple[int, list[JobState], SweepFolder]:
    """Run what was planned, as the one driver of its sweep."""
    first = what.jobs[0][1].overrides if what.jobs else what.fixed
    composed, config = what.composer.checked_config(first)
    folder = make_folder(what, composed)
    folder.acquire()
    out = display.console(quiet=False)
    try:
        for state in folder.load().values():
            if state.state == "running":
                folder.save(settle(folder, state, config["monitor"]["metric"], GRACE))
        folder.write_queue(
            experiment=what.experiment,
            overrides=shown_words(what, config),
            swept=what.swept,
            monitor=config["monitor"],
            total=source.total,
            jobs=[(id_, point.overrides) for id_, point in what.jobs],
        )
        table = Table(out, what.swept, len(what.jobs) or source.total)
        driver = Driver(what, folder, table, config, again=again, only_failed=only_failed)
        with table:
            driver.run(source)
        states = list(driver.session.values())
        recorded = driver.close()
    finally:
        folder.release()
    closing(out, states, what.swept, config["monitor"], stopped=driver.stopped is not None)
    if recorded and recorded.run_id:
        click.echo(f"sweep {recorded.run_id} in MLflow; the comparison: regente ui")
    click.echo(f"sweep {display.shown(str(folder.path))}")
    if driver.stopped:
        raise Stopped(driver.stopped)
    return int(any(state.state != "done" for state in states)), states, folder


def shown_words(what: Plan, config: dict[str, Any]) -> list[str]:
    """The overrides without their secrets."""
    redact = Redactor(secret_values(config), env_references(what.base.yaml()))
    return [redact.text(word) for word in what.overrides]


def show(what: Plan, source: Source) -> None:
    """Print the jobs, and which of them are done."""
    known = SweepFolder(what.folder).load()
    for id_, point in what.jobs:
        state = known[id_].state if id_ in known else "queued"
        click.echo(f"#{point.number}  {id_}  {state:<7}  {' '.join(varied(point.overrides, what.swept))}")
    number = (
        f"{len(what.jobs):,}"
        if not source.adaptive
        else "an open number of"
        if source.total is None
        else source.total
    )
    repeated = f", {what.repeated} of the points repeat another" if what.repeated else ""
    click.echo(f"{number} jobs{repeated}; none was started")
