"""`regente why`. Nothing here imports torch or MLflow."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from regente.cli.resume import complete_job
from regente.jobs.streams import printable


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
            click.echo(printable(line))
