"""`regente export`: write a run's model to a file, compare it with the run, and write a model card."""

from pathlib import Path
from typing import Any

from rich.console import Console

from regente.errors import ConfigError, Problem
from regente.inference.export_formats import (
    Exported,
    Predict,
    Samples,
    compare,
    export_onnx,
    export_safetensors,
    export_torch,
    latency,
    quantize,
    samples,
    score,
)
from regente.inference.model_card import write_card
from regente.inference.predictor import load_run
from regente.jobs import console
from regente.jobs.runs import Run, shown
from regente.training.performance import channels_last, tune_process

FOLDER = "export"  # in the job directory
FILES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
COMPARED = 256  # validation samples whose outputs are compared
SCORED = 2000  # test samples, at most, on which an int8 file is scored


def export(
    run: Run, form: str, folder: Path | None, out: Console, *, bound: float, opset: int, int8: bool
) -> list[Exported]:
    """Write a run's model in one of the formats of FILES, compare it with the run, and write a model card.

    `bound` is the largest allowed difference, `opset` the ONNX operator set; `int8` writes a second ONNX file.

    Raises:
        CheckpointError: when the run has no weights, or the file's outputs differ by more than `bound`.
        ConfigError: when the format takes an example of the inputs, and there is none.
        DataError: when the run's data, which the comparison takes, is not there.
    """
    tune_process()
    folder = folder or run.job.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILES[form]
    console.row(out, "weights", shown(run.checkpoint))
    if form == "safetensors":
        model = export_safetensors(run, file)
        console.row(out, "file", f"{shown(file)}  {file.stat().st_size / 1e6:.3f} MB")
        console.row(out, "", "the run's weights, equal to the bit")
        console.row(out, "card", shown(write_card(folder, run, model, file)))
        return []
    loaded = load_run(run)
    raw, classes = loaded.predictor.preprocessing is not None, loaded.class_names is not None
    if int8 and not raw:
        what = f"takes samples as files hold them, and {type(loaded.data).__name__} has no preprocessing() and raw()"
        raise ConfigError([Problem("--quantize int8", what)])
    reference = samples(loaded, "val", COMPARED)
    example = reference.x[:2]
    predictor: Any = channels_last(loaded.predictor)
    predict: Predict = (
        export_onnx(predictor, example, file, opset)
        if form == "onnx"
        else export_torch(predictor, example, file)
    )
    exported = [compare(file, predict, reference, classes, bound)]
    if not raw:
        console.row(out, "", "x as a batch holds it, y as forward gives it: the data has no preprocessing()")
    _print(out, exported[0], len(reference.x), f"allowed {bound:g}")
    console.row(out, "", f"torch without export, one sample: {latency(predictor, example[:1]) * 1e3:.2f} ms")
    if int8:
        test = samples(loaded, "test", SCORED)
        exported.append(_int8(out, file, predict, reference, test, classes))
    card = write_card(folder, run, predictor.model, file, (loaded, reference.x), exported)
    console.row(out, "card", shown(card))
    return exported


def _int8(
    out: Console, file: Path, predict: Predict, reference: Samples, test: Samples, classes: bool
) -> Exported:
    target = file.with_name(f"{file.stem}-int8.onnx")
    quantized = quantize(file, reference.x, target)
    exported = compare(target, quantized, reference, classes, None)
    _print(out, exported, len(reference.x), "int8 rounds")
    before, after = (score(each, test, classes) for each in (predict, quantized))
    kind = "accuracy" if classes else "mean difference from the run's values"
    console.row(out, "", f"{kind} on {len(test.x):,} test samples: {before:.4f} before, {after:.4f} in int8")
    return exported


def _print(out: Console, exported: Exported, number: int, remark: str) -> None:
    console.row(out, "file", f"{shown(exported.file)}  {exported.megabytes:.3f} MB")
    difference = f"largest difference {exported.difference:.2g} over {number} samples"
    console.row(out, "", f"{difference}; {remark}")
    speed = f"one sample {exported.latency * 1e3:.2f} ms, {exported.throughput:,.0f} samples/s in batches"
    console.row(out, "", speed)
