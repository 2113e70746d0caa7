"""`regente why`, `importance` and `report`. Nothing here imports torch or MLflow."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from regente.cli.compare import complete_names
from regente.cli.resume import complete_job
from regente.jobs.streams import plain


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_job)
@click.argument("other", required=False, metavar="[OTHER]", shell_complete=complete_job)
def why(run: str, other: str | None) -> None:
    """Explain what differs between two runs, the most likely cause first.

    Settings, data, code, seed, packages, resumes and the machine are compared, as the runs recorded them, and the
    traces: the first step at which losses, weights or metrics are not equal to the bit. One RUN is compared with the
    best run of its experiment.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente why latest                       against the best of its experiment
    regente why digits_cnn:best 0a1b2c3d
    """
    from regente.analysis.why import explain

    with TemporaryDirectory() as scratch:
        found = explain(run, other, Path.cwd(), Path(scratch))
        for line in found.lines():
            click.echo(plain(line))


def _runs(command: Any) -> Any:
    """The arguments of what is done with many runs."""
    metric = click.option("--metric", help="A metric of the runs; default: the monitored one.")
    names = click.argument(
        "names", nargs=-1, metavar="[RUN | SWEEP | EXPERIMENT]...", shell_complete=complete_names
    )
    return names(metric(command))


@click.command()
@_runs
def importance(names: tuple[str, ...], metric: str | None) -> None:
    """Tell which settings mattered among runs, and which changed nothing.

    Prints the share of each setting in the variance of the metric, its best and its worst value, and the pairs of
    settings that act together. The shares are those of Optuna's fANOVA where Optuna is installed, else main effects. A
    setting is dead if runs that differ in it alone are equal to the bit: nobody reads it.

    Names are those of regente compare. Without a name: the sweep of the latest run, or else its experiment.

    \b
    regente importance digits_search       the runs of a search
    regente importance sweep-96e242d6      a sweep
    """
    from regente.analysis.comparison import compare
    from regente.analysis.importance import importance as find

    found = compare(names, Path.cwd(), metric=metric)
    for line in find(found.runs, found.metric).lines():
        click.echo(plain(line))


@click.command()
@_runs
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html", show_default=True,
    help="FILE.html, FILE.md, FILE.tex or FILE.pdf.",
)  # fmt: skip
def report(names: tuple[str, ...], metric: str | None, out: Path) -> None:
    """Write a report on a sweep or on runs: a document to hand to others.

    It holds the command line, the table of regente compare with its verdict, curves with bands over seeds, what the
    settings did, confusion matrices, costs, and how to reproduce each run. The HTML page needs no other file and runs no
    script. Markdown and LaTeX have the tables alone. A PDF is printed by Chromium or Chrome.

    Names are those of regente compare. Without a name: the sweep of the latest run, or else its experiment.

    \b
    regente report                                       the latest sweep, to report.html
    regente report digits_mlp digits_cnn --out both.md   two experiments
    regente report sweep-96e242d6 --out sweep.pdf
    """
    from regente.analysis.write_report import write

    write(names, Path.cwd(), metric, out)
    click.echo(f"{out}")


COMMANDS: list[click.Command] = [why, importance, report]
