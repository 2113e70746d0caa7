"""`regente export`: which files, where, and what is said of them."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from regente.inference.formats import (
    CHECKED,
    Ask,
    Exported,
    Samples,
    check,
    export_onnx,
    export_safetensors,
    export_torch,
    prepared,
    quantize,
    samples,
    score,
    timed,
)
from regente.inference.model_card import write_card
from regente.inference.predictor import open_run
from regente.jobs import console
from regente.jobs.runs import Run, shown
from regente.training.performance import tune_process

FOLDER = "export"  # in the job directory
FILES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
SCORED = 2000  # samples of the test split, at most, that an int8 file is measured on


@dataclass(frozen=True)
class Wanted:
    """What is asked for: one of FILES, the greatest difference, the ONNX opset, whether an int8 file as well."""

    form: str
    bound: float
    opset: int
    int8: bool


def export(run: Run, wanted: Wanted, folder: Path | None, out: Console) -> list[Exported]:
    """Write a run's model with its preprocessing, hold it against the original, and put a model card beside it.

    Raises:
        CheckpointError: when the run has no weights, or the file does not answer as they do.
        DataError: when the run's data, on which the file is checked, is not there.
    """
    tune_process()
    opened = open_run(run)
    classes = opened.names is not None
    folder = folder or run.job.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    seen = samples(opened, "val", CHECKED)
    answers, file = prepared(opened), folder / FILES[wanted.form]
    console.row(out, "weights", shown(run.checkpoint))
    example = seen.x[:2]
    if wanted.form == "onnx":
        ask: Ask = export_onnx(answers, example, file, wanted.opset)
    elif wanted.form == "torch":
        ask = export_torch(answers, example, file)
    else:
        ask = export_safetensors(opened, file)
    made = [check(file, ask, seen, classes, wanted.bound)]
    _say(out, made[0], seen, f"at most {wanted.bound:g} is allowed")
    eager = timed(answers, seen.x[:1])
    console.row(out, "", f"torch itself, one sample: {eager * 1e3:.2f} ms")
    if wanted.int8:
        made.append(_int8(out, file, ask, seen, samples(opened, "test", SCORED), classes))
    card = write_card(folder, opened, made, answers, seen.x)
    console.row(out, "card", shown(card))
    return made


def _int8(out: Console, file: Path, ask: Ask, seen: Samples, test: Samples, classes: bool) -> Exported:
    target = file.with_name(f"{file.stem}-int8.onnx")
    small = quantize(file, seen.x, target)
    made = check(target, small, seen, classes, None)
    _say(out, made, seen, "int8 rounds")
    before, after = (score(each, test, classes) for each in (ask, small))
    kind = "accuracy" if classes else "mean difference from the float answers"
    console.row(out, "", f"{kind} on {len(test.y):,} test samples: {before:.4f} before, {after:.4f} in int8")
    return made


def _say(out: Console, made: Exported, seen: Samples, remark: str) -> None:
    console.row(out, "file", f"{shown(made.file)}  {made.megabytes:.3f} MB")
    what = f"largest difference {made.difference:.2g} over {len(seen.y)} validation samples; {remark}"
    console.row(out, "", what)
    console.row(out, "", f"one sample {made.latency * 1e3:.2f} ms, {made.speed:,.0f} samples/s in batches")
