"""The commands that use a run: each takes its name, see runs.py. Nothing here imports torch or MLflow."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from regente.errors import ConfigError, DataError, MachineError, Problem
from regente.jobs.runs import find
from regente.jobs.streams import printable

LISTED = 100  # inputs that could not be read


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.jobs.runs import names

    return [name for name in names(Path.cwd()) if name.startswith(incomplete)]


def run_name(command: Any) -> Any:
    """The argument RUN."""
    return click.argument("run", default="latest", metavar="[RUN]", shell_complete=_complete)(command)


@click.command()
@run_name
@click.option("--prompt", default="", help="The text to go on from; without one, a word drawn at random.")
@click.option("--words", type=click.IntRange(1), default=50, show_default=True, help="How many to add.")
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.8, show_default=True,
    help="Above 1 bolder, below 1 more cautious; 0 takes the likeliest word each time.",
)  # fmt: skip
@click.option("--top-k", type=click.IntRange(1), default=40, show_default=True, help="Draw of so many words.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, another text."
)
def generate(run: str, prompt: str, words: int, temperature: float, top_k: int, seed: int) -> None:
    """Go on with a text as the language model of a RUN would.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente generate --prompt "the value of"
    regente generate text_lstm --words 100 --temperature 0.5 --top-k 10 --seed 3
    regente generate runs/text_lstm/20260101-120000-0a1b2c --temperature 0
    """
    found = find(run, Path.cwd())
    from regente.inference.generate import generate as text
    from regente.models.text_generation import Sampling

    click.echo(printable(text(found, prompt, words, Sampling(temperature, top_k), seed)))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[RUN] [OVERRIDES]...", shell_complete=_complete)
@click.option("--debug", is_flag=True, help="Print whole tracebacks.")
def evaluate(words: tuple[str, ...], debug: bool) -> None:
    """Measure what a RUN has learned, on its own data or other.

    Loss, accuracy and calibration of each split, precision, recall and F1 of each class; confusion matrix and worst
    mistakes as pictures. MLflow has it all as a child of the run. RUN: latest, best, an
    experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente evaluate                                  the latest run, on its own data
    regente evaluate digits_cnn:best
    regente evaluate 0a1b2c data.root=other_photos    photos of the same classes
    regente evaluate latest data=mnist                data with the same num_classes and input_shape
    """
    run, overrides = split(words)
    found = find(run, Path.cwd())
    from regente.inference.evaluate import evaluate as again

    sys.exit(again(found, overrides, debug=debug).exit_code)


@click.command()
@click.argument("run", metavar="RUN", shell_complete=_complete)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path())
@click.option(
    "--out", type=click.Path(path_type=Path), help="FILE.csv, FILE.parquet or FILE.json; else a table."
)
def predict(run: str, inputs: tuple[str, ...], out: Path | None) -> None:
    """Answer files with the model of a RUN.

    INPUT is what the run's data is made of: images, .npz or .npy with an array x, lines of .txt and .md or the words
    themselves, CSV or Parquet with the columns of a series or table; or folders of these. They are prepared as the
    training samples were; classes with probabilities come out, or values. What cannot be read is listed and left out,
    and the exit code is 4.

    \b
    regente predict folder_cnn:best photo.jpg more_photos/ --out photos.csv
    regente predict mnist_cnn digits.npz --out digits.parquet
    regente predict text_lstm "the value of the"
    regente predict series_forecast load.csv
    """
    if out is not None and out.suffix not in (".csv", ".parquet", ".json"):
        what = "FILE.csv, FILE.parquet or FILE.json would be right"
        raise ConfigError([Problem(f"--out {out}", f"of an unknown kind; {what}")])
    if out is not None and not out.parent.is_dir():
        raise ConfigError([Problem(f"--out {out}", f"there is no folder {out.parent}; make it first")])
    found = find(run, Path.cwd())
    from regente.inference.predict import predict as ask
    from regente.inference.predict import table, write

    made = ask(found, inputs)
    if out is not None and made.lines:
        write(made.lines, out)
        click.echo(f"{len(made.lines):,} predictions in {out}")
    elif out is None:
        for line in table(made.lines):
            click.echo(printable(line))
    if made.bad:
        more = [f"and {len(made.bad) - LISTED:,} more"] if len(made.bad) > LISTED else []
        raise DataError("\n".join([f"{len(made.bad):,} left out:", *made.bad[:LISTED], *more]))


@click.command()
@run_name
@click.option(
    "--format", "form", type=click.Choice(["onnx", "torch", "safetensors"]), default="onnx", show_default=True,
    help="An ONNX graph, a program of torch.export, or the weights with their config.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="A folder; else export/ in the run's."
)
@click.option("--quantize", type=click.Choice(["int8"]), help="With onnx: also a file for small devices.")
@click.option(
    "--bound", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True,
    help="The largest difference from the run's own probabilities, or of values in standard deviations of the target.",
)  # fmt: skip
@click.option(
    "--opset", type=click.IntRange(17), default=18, show_default=True, help="With onnx: the operator set."
)
def export(run: str, form: str, out: Path | None, quantize: str | None, bound: float, opset: int) -> None:
    """Write the model of a RUN as a file that needs no Regente.

    Its preprocessing is inside: images go in as uint8, words as numbers, a series in its own units; probabilities or
    values come out, for any number of samples. The file is held against the run on samples of its validation data, and
    a model card is put beside it.

    \b
    regente export digits_cnn:best
    regente export latest --quantize int8          accuracy before and after is shown
    regente export latest --format torch --out to_go
    regente export latest --opset 17               for TensorRT before 10, as on JetPack 5

    \b
    On a Jetson, with TensorRT:
    trtexec --onnx=model.onnx --minShapes=x:1x1x28x28 --optShapes=x:8x1x28x28 \\
            --maxShapes=x:64x1x28x28 --fp16 --saveEngine=model.engine
    """
    if quantize and form != "onnx":
        raise ConfigError([Problem(f"--quantize {quantize}", "goes with --format onnx")])
    found = find(run, Path.cwd())
    if form == "onnx":
        from regente.config.optional_packages import require

        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "export", "--format onnx")
    from regente.inference.export import Wanted
    from regente.inference.export import export as write
    from regente.jobs.console import terminal

    write(found, Wanted(form, bound, opset, quantize == "int8"), out, terminal(quiet=False))


OPEN = "Let --host be an address that others reach: anyone who does may send requests, there is no password."


@click.command()
@run_name
@click.option("--port", type=click.IntRange(1, 65535), default=5001, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--open-to-network", is_flag=True, help=OPEN)
def serve(run: str, port: int, host: str, open_to_network: bool) -> None:
    """Answer HTTP requests with the model of a RUN.

    For this machine alone: MLflow's own model server on the model with its preprocessing inside: POST
    /invocations with any number of samples gives probabilities or values, what does not fit gets a status 400 that
    says what would; /health says 200.

    \b
    regente serve digits_cnn:best
    regente serve latest --port 8000
    regente serve latest --host 0.0.0.0 --open-to-network
    """
    if host not in ("127.0.0.1", "localhost", "::1") and not open_to_network:
        what = "lets everyone who reaches this machine send requests; add --open-to-network if that is meant"
        raise ConfigError([Problem(f"--host {host}", what)])
    found = find(run, Path.cwd())
    from regente.tracking.ui_links import is_free

    if not is_free(port):
        raise MachineError(f"--port {port} is taken; try --port {port + 1}")
    from regente.inference.serve import packed, start
    from regente.jobs.runs import shown

    model, request = packed(found)
    click.echo(
        f"{shown(model)} on http://{host}:{port}, ready in about ten seconds; Ctrl-C ends it. To ask it:"
    )
    reached = "127.0.0.1" if host == "0.0.0.0" else host
    click.echo(
        f"curl -H 'Content-Type: application/json' -d @{shown(request)} http://{reached}:{port}/invocations"
    )
    sys.stdout.flush()
    start(model, host, port)


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the run, if the first word is one, and the overrides.

    Raises:
        ConfigError: for words that are neither.
    """
    named = bool(words) and "=" not in words[0] and not words[0].startswith(("+", "~", "-"))
    run, overrides = (words[0], list(words[1:])) if named else ("latest", list(words))
    if wrong := [word for word in overrides if "=" not in word and not word.startswith("~")]:
        raise ConfigError([Problem(word, "neither KEY=VALUE nor an option; see --help") for word in wrong])
    return run, overrides


@click.command()
@run_name
@click.option(
    "--verify", is_flag=True, help="Only replay the first steps, and say whether they are the same."
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="With --verify: how many at most; without, those of the first 300.",
)
@click.option("--debug", is_flag=True, help="Print whole tracebacks.")
def rerun(run: str, verify: bool, steps: int | None, debug: bool) -> None:
    """Run again what a RUN recorded; say what is different.

    Code, packages, data and machine are compared. With --verify nothing is recorded: losses and weights are held
    against those that the run left in its trace, and the exit code is 1 where they differ by more than 1e-5.

    \b
    regente rerun latest --verify
    regente rerun digits_cnn:best
    regente rerun 0a1b2c3d          an MLflow run id does, also where the job directory is gone
    """
    from tempfile import TemporaryDirectory

    from regente.inference import rerun as again
    from regente.jobs.hardware import require
    from regente.training.run import run as run_job

    if steps and not verify:
        raise ConfigError([Problem("--steps", "goes with --verify")])
    with TemporaryDirectory() as scratch:
        job, config = again.recorded(run, Path.cwd(), Path(scratch))
        require(config["trainer"])
        changes = list(again.differences(job, config, Path.cwd()))
        for line in changes or ["code, packages, data and machine: as they were"]:
            click.echo(line)
        if verify:
            verdict = again.verify(job, config, steps)
            click.echo(verdict.words)
            sys.exit(verdict.code)
        new = again.freeze_again(job, run)
    sys.exit(run_job(new.path, debug=debug).exit_code)


COMMANDS: list[click.Command] = [evaluate, predict, export, serve, generate, rerun]
