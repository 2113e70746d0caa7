"""The commands that use a finished run. Nothing here imports torch or MLflow."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from regente.errors import ConfigError, DataError, MachineError, Problem, first_of
from regente.jobs.runs import find
from regente.jobs.streams import printable

PRINTED = 20  # predictions for a split
UNREADABLE = 100  # unreadable inputs that an error lists


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from regente.jobs.runs import names

    return [name for name in names(Path.cwd()) if name.startswith(incomplete)]


def run_name(command: Any) -> Any:
    """The argument RUN."""
    return click.argument("run", default="latest", metavar="[RUN]", shell_complete=_complete)(command)


@click.command()
@run_name
@click.option("--prompt", default="", help="The beginning of the text; without it, a random word.")
@click.option(
    "--words", type=click.IntRange(1), default=50, show_default=True, help="Number of words to add."
)
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.8, show_default=True,
    help="Higher is more random; 0 always takes the most probable word.",
)  # fmt: skip
@click.option(
    "--top-k",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Sample from the K most probable words.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed gives another text."
)
def generate(run: str, prompt: str, words: int, temperature: float, top_k: int, seed: int) -> None:
    """Generate text with a run's language model.

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
@click.option("--debug", is_flag=True, help="Print full tracebacks.")
def evaluate(words: tuple[str, ...], debug: bool) -> None:
    """Evaluate a run's model on its own data or on other data.

    Prints loss, accuracy and calibration error of each split, and precision, recall and F1 of each class. Plots the
    confusion matrix and the worst mistakes. MLflow records all of it as a child of the run.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente evaluate                                  the latest run, on its own data
    regente evaluate digits_cnn:best
    regente evaluate 0a1b2c data.root=other_photos    photos of the same classes
    regente evaluate latest data=mnist                other data of the same num_classes and input_shape
    """
    run, overrides = split(words)
    found = find(run, Path.cwd())
    from regente.inference.evaluate import evaluate as again

    sys.exit(again(found, overrides, debug=debug).exit_code)


@click.command()
@run_name
@click.argument("inputs", nargs=-1, metavar="[INPUT]...", type=click.Path())
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="FILE.csv, FILE.parquet or FILE.json; without it a table is printed.",
)
def predict(run: str, inputs: tuple[str, ...], out: Path | None) -> None:
    """Predict with a run's model on files, or on the run's own data.

    Without INPUT the data is that of predict_dataloader, or else the test data, and the task's predict_step gives the
    predictions.

    INPUT is a file or folder of the same kind as the run's data: images; .npz or .npy with an array x; .txt or .md, one
    sample per line; CSV or Parquet with the columns of a series or table. For a text model it may be the text itself.
    Inputs get the run's preprocessing. The output is classes with probabilities, or values. Inputs that cannot be read
    are listed, and the exit code is then 4.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente predict folder_cnn:best photo.jpg more_photos/ --out photos.csv
    regente predict mnist_cnn digits.npz --out digits.parquet
    regente predict text_lstm "the value of the"
    regente predict series_forecast load.csv
    regente predict my_experiment --out test.parquet
    """
    if out is not None and out.suffix not in (".csv", ".parquet", ".json"):
        what = "unknown file type; use FILE.csv, FILE.parquet or FILE.json"
        raise ConfigError([Problem(f"--out {out}", what)])
    if out is not None and not out.parent.is_dir():
        raise ConfigError([Problem(f"--out {out}", f"there is no folder {out.parent}; create it first")])
    if Path(run).is_file():
        raise ConfigError([Problem(run, f"a file, where a run is expected; regente predict latest {run}")])
    found = find(run, Path.cwd())
    from regente.inference.predict import predict as ask
    from regente.inference.predict import table, write

    if inputs:
        made = ask(found, inputs)
    else:
        from regente.training.session import imports

        with imports():
            from regente.inference.predict_split import predict_split
        made = predict_split(found)
    if out is not None and made.rows:
        write(made.rows, out)
        click.echo(f"{len(made.rows):,} predictions in {out}")
    elif out is None:
        shown = made.rows if inputs else made.rows[:PRINTED]
        for line in table(shown):
            click.echo(printable(line))
        if len(shown) < len(made.rows):
            click.echo(f"and {len(made.rows) - len(shown):,} more; --out FILE.csv writes all")
    if bad := made.unreadable:
        noun = "input" if len(bad) == 1 else "inputs"
        raise DataError(
            f"{len(bad):,} {noun} cannot be read:\n{first_of(bad, UNREADABLE, separator=chr(10))}"
        )
    sys.exit(0)  # at once: what torch has imported is slow and loud to take down


@click.command()
@run_name
@click.option(
    "--format", "form", type=click.Choice(["onnx", "torch", "safetensors"]), default="onnx", show_default=True,
    help="An ONNX graph, a torch.export program, or the weights with their config.",
)  # fmt: skip
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder; default: export/ in the run's directory.",
)
@click.option("--quantize", type=click.Choice(["int8"]), help="With onnx: also write an int8 file.")
@click.option(
    "--bound", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True,
    help="Largest allowed difference from the run's probabilities; for values, in standard deviations of the target.",
)  # fmt: skip
@click.option(
    "--opset",
    type=click.IntRange(17),
    default=18,
    show_default=True,
    help="With onnx: version of the operator set.",
)
def export(run: str, form: str, out: Path | None, quantize: str | None, bound: float, opset: int) -> None:
    """Export a run's model to a file that does not need Regente.

    The file includes the preprocessing: inputs are images as uint8, words as numbers, or a series in its own units;
    outputs are probabilities or values, for any batch size. The file is compared with the run's model on samples of the
    validation data. A model card is written beside it.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente export digits_cnn:best
    regente export latest --quantize int8          prints the accuracy before and after
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
            require(package, "--format onnx")
    from regente.inference.export import export as write
    from regente.jobs.console import terminal

    write(found, form, out, terminal(quiet=False), bound=bound, opset=opset, int8=quantize == "int8")


OPEN = "Allow a --host that other machines can reach. Anyone can then send requests: there is no password."


@click.command()
@run_name
@click.option("--port", type=click.IntRange(1, 65535), default=5001, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--open-to-network", is_flag=True, help=OPEN)
def serve(run: str, port: int, host: str, open_to_network: bool) -> None:
    """Serve a run's model over HTTP.

    This starts MLflow's model server with the model and its preprocessing, for this machine only. POST /invocations
    takes any number of samples and returns probabilities or values. An invalid request gets status 400 with the
    expected format. GET /health returns 200.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente serve digits_cnn:best
    regente serve latest --port 8000
    regente serve latest --host 0.0.0.0 --open-to-network
    """
    if host not in ("127.0.0.1", "localhost", "::1") and not open_to_network:
        what = "everyone who can reach this machine could send requests; to allow that, add --open-to-network"
        raise ConfigError([Problem(f"--host {host}", what)])
    found = find(run, Path.cwd())
    from regente.tracking.ui_links import is_free

    if not is_free(port):
        raise MachineError(f"--port {port} is in use; try --port {port + 1}")
    from regente.inference.serve import pack, start
    from regente.jobs.runs import shown

    model, request = pack(found)
    click.echo(
        f"{shown(found.job.path)} on http://{host}:{port}, ready in about ten seconds; Ctrl-C stops it. Example:"
    )
    reached = "127.0.0.1" if host == "0.0.0.0" else host
    click.echo(f"curl -H 'Content-Type: application/json' -d @{request} http://{reached}:{port}/invocations")
    sys.stdout.flush()
    start(model, host, port, open_to_network=open_to_network)


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the run, which is `latest` unless the first word is one, and the overrides.

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
@click.option("--verify", is_flag=True, help="Only repeat the first steps, and compare them with the run's.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="With --verify: number of steps; default 300.",
)
@click.option("--debug", is_flag=True, help="Print full tracebacks.")
def rerun(run: str, verify: bool, steps: int | None, debug: bool) -> None:
    """Repeat a run, and print what is different from then.

    Code, packages, data and machine are compared. With --verify nothing is recorded: losses and weights are compared
    with the run's trace, and the exit code is 1 if they differ by more than 1e-5.

    RUN is latest, best, an experiment, EXPERIMENT:best, the start of an MLflow run id, or a job directory.

    \b
    regente rerun latest --verify
    regente rerun digits_cnn:best
    regente rerun 0a1b2c3d          an MLflow run id; the job directory may be gone
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
        for line in changes or ["code, packages, data and machine: the same"]:
            click.echo(line)
        if verify:
            result = again.verify(job, config, steps)
            click.echo(result.text)
            sys.exit(result.exit_code)
        new = again.freeze_again(job, run)
    sys.exit(run_job(new.path, debug=debug).exit_code)


COMMANDS: list[click.Command] = [evaluate, predict, export, serve, generate, rerun]
