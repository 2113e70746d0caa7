"""`regente compare`. Nothing here imports torch or MLflow; the verdict imports numpy and scipy, after the table."""

import sys
from pathlib import Path

import click

MOST_ROWS = 40  # on a terminal


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.jobs.runs import names

    runs = Path.cwd() / "runs"
    sweeps = sorted({str(file.parent.relative_to(Path.cwd())) for file in runs.glob("*/sweep-*/queue.json")})
    return [name for name in [*names(Path.cwd()), *sweeps] if name.startswith(incomplete)]


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN | SWEEP | EXPERIMENT]...", shell_complete=complete_names)
@click.option("--by", metavar="KEYS", help="Group by these settings alone, separated by commas.")
@click.option("--metric", help="A metric of the runs; default: the monitored one.")
@click.option(
    "--sort", metavar="COLUMN", help="A setting or n, mean, sd, best, worst, test; -COLUMN: reversed."
)
@click.option(
    "--format", "form", default="table", show_default=True,
    type=click.Choice(["table", "csv", "json", "md", "latex", "html"]),
)  # fmt: skip
@click.option("--more-seeds", is_flag=True, help="Print the commands that add the missing seeds.")
def compare(
    names: tuple[str, ...], by: str | None, metric: str | None, sort: str | None, form: str, more_seeds: bool
) -> None:
    """Compare runs: a row per configuration, best first, and whether the difference is real.

    Runs that differ in the seed alone are one row: n, mean, standard deviation, 95 % interval of the mean, best and
    worst. The line below the table compares the two best rows, or the two names if there are two.

    RUN is latest, best, EXPERIMENT:best, the start of an MLflow run id, or a job directory. SWEEP is a sweep's directory
    or the name of it. Without a name: the sweep of the latest run, or else its experiment.

    \b
    regente compare                                the latest sweep
    regente compare digits_mlp digits_cnn          all runs of two experiments
    regente compare digits_mlp --by optimizer.lr   one row per learning rate
    regente compare RUN RUN                        two runs, on their test samples
    regente compare --more-seeds                   the commands that would settle it
    """
    from regente.analysis.comparison import as_json
    from regente.analysis.comparison import compare as read
    from regente.analysis.formats import as_csv, as_html, as_latex, as_markdown, as_text
    from regente.jobs.streams import markdown, plain, printable

    keys = [key.strip() for key in (by or "").split(",") if key.strip()]
    found = read(names, Path.cwd(), metric=metric, by=keys, sort=sort)
    if more_seeds:
        for line in found.more_seeds() or ["no seeds are missing"]:
            click.echo(printable(line))
        return
    if form == "json":
        click.echo(as_json(found))
        return
    if form in ("csv", "latex"):
        click.echo((as_csv(found) if form == "csv" else as_latex(found)).rstrip("\n"))
        return
    if form == "table":
        for line in as_text(found, MOST_ROWS):
            click.echo(line)
        sys.stdout.flush()  # the verdict imports scipy
    lines = found.lines()
    if form == "html":
        click.echo(as_html(found, lines))
        return
    if form == "md":
        click.echo(as_markdown(found))
    click.echo()
    for line in lines:
        click.echo(f"{markdown(line)}\n" if form == "md" else plain(line))
