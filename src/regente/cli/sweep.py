"""`regente sweep status | resume | retry | stop`. Nothing here imports torch or MLflow."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from regente.errors import ConfigError, MachineError, RegenteError
from regente.jobs.runs import shown


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.sweeps.records import sweeps

    names = ["latest", *dict.fromkeys(path.parent.name for path in sweeps(Path.cwd()))]
    return [name for name in names if name.startswith(incomplete)]


def sweep_name(command: Any) -> Any:
    """The argument SWEEP."""
    return click.argument("sweep", default="latest", metavar="[SWEEP]", shell_complete=_complete)(command)


@click.group()
def sweep() -> None:
    """Show, resume, retry or stop a sweep.

    SWEEP is latest, an experiment (its latest sweep), or a sweep's directory.

    \b
    regente train -m seed=1,2,3      start one; the same command line again resumes it
    regente sweep status             show the state of its jobs
    regente sweep retry digits_cnn   run its failed jobs again
    """


@sweep.command()
@sweep_name
def status(sweep: str) -> None:
    """Show the state of each job of a SWEEP.

    \b
    regente sweep status digits_cnn
    """
    from regente.jobs.console import terminal
    from regente.sweeps.records import find_sweep
    from regente.sweeps.state import JobState
    from regente.sweeps.table import closing

    folder = find_sweep(sweep, Path.cwd())
    queue, states = folder.queue(), folder.load()
    driver, alive = folder.driver(), folder.driven()
    if queue is None:
        raise ConfigError(
            f"{shown(folder.path)}/queue.json: damaged; repeat its command line: regente train -m ..."
        )
    jobs = {id_: states.pop(id_, JobState(id_, overrides)) for id_, overrides in queue.jobs.items()}
    rows = [*jobs.values(), *(states.values() if not jobs else [])]
    if driver and alive:
        click.echo(f"{shown(folder.path)}: run by process {driver.pid} on {driver.host}")
    else:
        wanted = len(jobs) or queue.total or len(rows) + 1  # of a search without an end
        left = sum(state.state == "done" for state in rows) < wanted
        further = (
            f"no process runs it; to go on: regente sweep resume {folder.path.name}"
            if left
            else "all is done"
        )
        click.echo(f"{shown(folder.path)}: {further}")
    counts = {name: sum(state.state == name for state in rows) for name in ("running", "queued")}
    if going := [f"{number} {name}" for name, number in counts.items() if number]:
        click.echo(", ".join(going))
    closing(terminal(quiet=False), rows, queue.swept, queue.monitor, stopped=False)
    if jobs and states:
        click.echo(f"and {len(states)} jobs of earlier command lines")


@sweep.command()
@sweep_name
def resume(sweep: str) -> None:
    """Resume a SWEEP: run all of its jobs that are not done, as its command line again would do.

    \b
    regente sweep resume
    """
    _resume(sweep, only_failed=False)


@sweep.command()
@sweep_name
def retry(sweep: str) -> None:
    """Run the failed jobs of a SWEEP again, and no others.

    \b
    regente sweep retry digits_cnn
    """
    _resume(sweep, only_failed=True)


@sweep.command()
@sweep_name
def stop(sweep: str) -> None:
    """Stop a SWEEP that another process runs: its jobs save and end, as after Ctrl-C.

    \b
    regente sweep stop
    """
    from regente.sweeps.records import find_sweep
    from regente.training.launch import GRACE

    folder = find_sweep(sweep, Path.cwd())
    driver, alive = folder.driver(), folder.driven()
    if driver is None or alive is False:
        click.echo(f"{shown(folder.path)}: no process runs it")
        return
    try:
        folder.own_queue()
    except ConfigError as error:  # its driver.json may name any process
        raise ConfigError(
            f"{error}; to stop process {driver.pid}, if it is yours: kill -INT {driver.pid}"
        ) from error
    if alive is None:
        raise MachineError(
            f"{folder.path.name} is run by process {driver.pid} on {driver.host}; stop it there"
        )
    os.kill(driver.pid, signal.SIGINT)
    end = time.monotonic() + GRACE + 15
    while folder.driven():
        if time.monotonic() > end:
            raise RegenteError(
                f"{folder.path.name}: process {driver.pid} does not end; end it with kill -9 {driver.pid}"
            )
        time.sleep(0.1)
    click.echo(f"{shown(folder.path)}: stopped; to go on: regente sweep resume {folder.path.name}")


def _resume(name: str, *, only_failed: bool) -> None:
    from regente.config.discovery import add_config_dir
    from regente.config.redaction import MASK
    from regente.sweeps.records import find_sweep
    from regente.sweeps.session import sweep as run

    folder = find_sweep(name, Path.cwd())
    queue = folder.own_queue()
    for place in queue.config_dirs:
        add_config_dir(Path(place))
    words = queue.overrides
    if any(MASK in word for word in words):
        raise ConfigError(
            f"{folder.path}: its command line holds a secret, which is not stored; repeat that line"
        )
    sys.exit(run(queue.experiment, words, only_failed=only_failed)[0])
