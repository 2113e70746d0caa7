"""The commands that go on with a run, or begin with its weights. Nothing here imports torch."""

import sys
from pathlib import Path
from typing import Any

import click


def _complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.jobs.runs import job_names

    return [name for name in job_names(Path.cwd()) if name.startswith(incomplete)]


def allowing(command: Any) -> Any:
    """The option of a run that goes on with other settings."""
    return click.option(
        "--allow", multiple=True, metavar="KEY",
        help="Let this setting change though the run then is no longer the one that was interrupted.",
    )(command)  # fmt: skip


RUN = """RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory."""


@click.command(
    help=f"""Resume an interrupted run.

    The results are the same as without the interruption.

    {RUN} OVERRIDES may change what leaves its steps as they were, such as
    trainer.max_epochs; anything else needs --allow KEY.

    \b
    regente resume latest
    regente resume digits_cnn trainer.max_epochs=20
    regente resume runs/digits_cnn/20260101-120000-0a1b2c optimizer.lr=1e-4 --allow optimizer.lr
""",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("run", default="latest", metavar="[RUN]", shell_complete=_complete_job)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@allowing
@click.option("--debug", is_flag=True, help="Print full tracebacks.")
def resume(run: str, overrides: tuple[str, ...], allow: tuple[str, ...], debug: bool) -> None:
    if "=" in run or run.startswith(("+", "~")):  # no RUN is given: the latest
        run, overrides = "latest", (run, *overrides)
    go_on(run, list(overrides), allow, debug=debug)


@click.command(
    help=f"""Start a new run with the config and the best weights of a run.

    {RUN} OVERRIDES may change anything that the weights fit.

    \b
    regente fork digits_cnn optimizer.lr=1e-4 trainer.max_epochs=5
    regente fork latest data=mnist
""",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("run", metavar="RUN", shell_complete=_complete_job)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--debug", is_flag=True, help="Print full tracebacks.")
def fork(run: str, overrides: tuple[str, ...], debug: bool) -> None:
    from regente.jobs.hardware import require
    from regente.training.checkpoints.resume import fork as forked
    from regente.training.run import run as run_job

    found = forked(run, overrides)
    require(found.config["trainer"])
    sys.exit(run_job(found.job.path, debug=debug).exit_code)


def go_on(name: str, overrides: list[str], allow: tuple[str, ...], *, debug: bool) -> None:
    """Run a job again from where it was interrupted; say so where there is nothing to do."""
    from regente.jobs.hardware import require
    from regente.training.checkpoints.resume import resume as resumed
    from regente.training.run import run as run_job

    found = resumed(name, overrides, allow)
    if found.done:
        return click.echo(found.done)
    require(found.config["trainer"])
    sys.exit(run_job(found.job.path, debug=debug).exit_code)
