"""The commands that resume a run, or start a new one from its weights. Nothing here imports torch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regente.errors import ConfigError, Problem

if TYPE_CHECKING:
    from regente.training.checkpoints.resume import PreparedRun


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.jobs.runs import job_names

    return [name for name in job_names(Path.cwd()) if name.startswith(incomplete)]


def refuse_in_train(words: tuple[str, ...]) -> None:
    """Name the right command for `train resume=RUN` and `train JOB_DIR`.

    Raises:
        ConfigError: for these two.
    """
    for word in words:
        if word.startswith("resume="):
            run = word.partition("=")[2] or "RUN"
            raise ConfigError([Problem(word, f"no such setting; to resume a run: regente resume {run}")])
    if words and (Path(words[0]) / "job.json").is_file():
        raise ConfigError([Problem(words[0], f"a job directory; to resume it: regente resume {words[0]}")])


RUN = """RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory."""


@click.command(
    help=f"""Resume an interrupted run.

    The results are the same as without the interruption.

    {RUN} OVERRIDES may change settings that
    do not change its steps, such as trainer.max_epochs; any other setting needs --allow KEY.

    \b
    regente resume latest
    regente resume digits_cnn trainer.max_epochs=20
    regente resume runs/digits_cnn/20260101-120000-0a1b2c optimizer.lr=1e-4 --allow optimizer.lr
""",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("run", default="latest", metavar="[RUN]", shell_complete=complete_job)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--allow", multiple=True, metavar="KEY",
    help="Let this setting change; the steps that follow will differ from those of the interrupted run.",
)  # fmt: skip
@click.option("--debug", is_flag=True, help="Print full tracebacks.")
def resume(run: str, overrides: tuple[str, ...], allow: tuple[str, ...], debug: bool) -> None:
    from regente.training.checkpoints.resume import prepare_resume

    if "=" in run or run.startswith(("+", "~")):  # no RUN is given: the latest
        run, overrides = "latest", (run, *overrides)
    prepared = prepare_resume(run, overrides, allow)
    if prepared.finished:
        click.echo(prepared.finished)
    else:
        _launch(prepared, debug=debug)


@click.command(
    help=f"""Start a new run with the config and the best weights of a run.

    {RUN} OVERRIDES may change anything that the weights fit.

    \b
    regente fork digits_cnn optimizer.lr=1e-4 trainer.max_epochs=5
    regente fork latest data=mnist
""",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("run", metavar="RUN", shell_complete=complete_job)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--debug", is_flag=True, help="Print full tracebacks.")
def fork(run: str, overrides: tuple[str, ...], debug: bool) -> None:
    from regente.training.checkpoints.resume import prepare_fork

    _launch(prepare_fork(run, overrides), debug=debug)


def _launch(prepared: "PreparedRun", *, debug: bool) -> None:
    from regente.jobs.hardware import require
    from regente.training.run import run

    require(prepared.config["trainer"])
    sys.exit(run(prepared.job.path, debug=debug).exit_code)
