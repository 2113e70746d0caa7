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
    regente train -m seed=1,2,3      starts one; the same words again go on with it
    regente sweep status             what has become of its jobs
    regente sweep retry digits_cnn   once more what failed
    """


@sweep.command()
@sweep_name
def status(sweep: str) -> None:
    """What has become of each job of a SWEEP.

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
    listed = {id_: states.pop(id_, JobState(id_, overrides)) for id_, overrides in queue.get("jobs", [])}
    rows = [*listed.values(), *(states.values() if not listed else [])]
    if driver and alive:
        click.echo(f"{shown(folder.path)}: run by process {driver.pid} on {driver.host}")
    else:
        wanted = len(listed) or queue.get("total") or len(rows) + 1  # of a search that never says it is over
        left = sum(state.state == "done" for state in rows) < wanted
        further = (
            f"nobody runs it; regente sweep resume {folder.path.name} goes on" if left else "all is done"
        )
        click.echo(f"{shown(folder.path)}: {further}")
    counts = {name: sum(state.state == name for state in rows) for name in ("running", "queued")}
    if going := [f"{number} {name}" for name, number in counts.items() if number]:
        click.echo(", ".join(going))
    closing(terminal(quiet=False), rows, queue.get("swept", []), queue.get("monitor", {}), stopped=False)
    if listed and states:
        click.echo(f"and {len(states)} jobs of earlier command lines")


@sweep.command()
@sweep_name
def resume(sweep: str) -> None:
    """Go on with a SWEEP: all that is not done, as its command line again would do.

    \b
    regente sweep resume
    """
    _again(sweep, only_failed=False)


@sweep.command()
@sweep_name
def retry(sweep: str) -> None:
    """Run the jobs of a SWEEP again that failed, and no others.

    \b
    regente sweep retry digits_cnn
    """
    _again(sweep, only_failed=True)


@sweep.command()
@sweep_name
def stop(sweep: str) -> None:
    """Stop a SWEEP that runs elsewhere: its jobs save and end, as they do upon Ctrl-C.

    \b
    regente sweep stop
    """
    from regente.sweeps.records import find_sweep
    from regente.training.launch import GRACE

    folder = find_sweep(sweep, Path.cwd())
    driver, alive = folder.driver(), folder.driven()
    if driver is None or alive is False:
        click.echo(f"{shown(folder.path)}: nobody runs it")
        return
    if alive is None:
        raise MachineError(
            f"{folder.path.name} is run by process {driver.pid} on {driver.host}; stop it there"
        )
    os.kill(driver.pid, signal.SIGINT)
    end = time.monotonic() + GRACE + 15
    while folder.driven():
        if time.monotonic() > end:
            raise RegenteError(f"{folder.path.name}: process {driver.pid} does not end; kill {driver.pid}")
        time.sleep(0.1)
    click.echo(f"{shown(folder.path)}: stopped; regente sweep resume {folder.path.name} goes on")


def _again(name: str, *, only_failed: bool) -> None:
    from regente.config.discovery import add_config_dir
    from regente.config.redaction import MASK
    from regente.sweeps.records import find_sweep
    from regente.sweeps.session import sweep as run

    folder = find_sweep(name, Path.cwd())
    queue = folder.queue()
    for place in queue.get("config_dirs", []):
        add_config_dir(Path(place))
    words = queue.get("overrides")
    if words is None:
        raise ConfigError(f"{folder.path}: it never started; repeat its command line: regente train -m ...")
    if any(MASK in word for word in words):
        raise ConfigError(
            f"{folder.path}: its command line holds a secret, which is not kept; repeat that line"
        )
    sys.exit(run(queue["experiment"], words, only_failed=only_failed)[0])
