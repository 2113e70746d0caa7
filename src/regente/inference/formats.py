"""Files that a model leaves with, its preprocessing inside: ONNX, torch's own, safetensors. Imports all that is heavy."""

import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regente.errors import CheckpointError, RegenteError
from regente.inference.predictor import Answers, Opened, open_run
from regente.jobs.runs import shown
from regente.training.performance import channels_last

BATCH, REPEATS = 64, 30  # samples of a batch and calls, to measure the speed
CHECKED = 256  # samples that the check takes
Ask = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Samples:
    """Some of a split as a file holds them, x [N, ...], their labels y, and what the model says of them when it is
    reached the way that training reaches it.
    """

    x: Tensor
    y: Tensor
    right: Tensor


@dataclass(frozen=True)
class Exported:
    """A file that was checked."""

    file: Path
    difference: float  # the largest, of probabilities or in standard deviations of the target
    latency: float  # seconds for one sample
    speed: float  # samples a second in batches

    @property
    def megabytes(self) -> float:
        return self.file.stat().st_size / 1e6


@torch.no_grad()  # not inference_mode, whose tensors cannot be exported with
def samples(opened: Opened, split: str, most: int) -> Samples:
    """The first samples of a split.

    Raises:
        DataError: when the run's data is not there.
    """
    data = opened.data
    if not data.splits:
        data.prepare_data()
        data.setup("test")
    index = torch.arange(min(most, len(data.splits[split])))
    raw, right, labels = [], [], []
    for part in torch.split(index, BATCH):
        x, y = data.on_after_batch_transfer(data.splits[split].batch(part), 0)
        said = opened.answers.model(x).float()
        raw.append(data.raw(split, part))
        right.append(opened.answers.after(said[:, -1] if said.ndim == 3 else said))
        labels.append(y[:, -1] if y.ndim == 2 and opened.names is not None else y)
    return Samples(torch.cat(raw), torch.cat(labels), torch.cat(right))


def export_torch(answers: Answers, example: Tensor, file: Path) -> Ask:
    """Write a program of torch.export, with any number of samples; what was read back from the file."""
    batch = torch.export.Dim("batch")
    with _exporting(file):
        program = torch.export.export(answers, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, file)
        loaded: Any = torch.export.load(file).module()
    return lambda x: loaded(x)


def export_onnx(answers: Answers, example: Tensor, file: Path, opset: int) -> Ask:
    """Write an ONNX graph x -> y, with any number of samples; ONNX Runtime's answers of it."""
    batch = torch.export.Dim("batch")
    with _exporting(file):
        torch.onnx.export(
            answers,
            (example,),
            file,
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["x"],
            output_names=["y"],
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    return onnx_runtime(file)


@contextmanager
def _exporting(file: Path) -> Iterator[None]:
    """Without torch's own warnings, about weights of recurrent layers that it handles well.

    Raises:
        RegenteError: when the model does what cannot be exported.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad(), redirect_stderr(StringIO()):  # it prints graphs
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise
    except Exception as error:  # torch.export, onnxscript and onnx each have many of their own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = f"the model does what cannot be exported so ({reason[:300]}); safetensors takes any model"
        raise RegenteError(f"{shown(file)}: {what}") from error


def onnx_runtime(file: Path) -> Ask:
    """The answers of an ONNX file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def export_safetensors(opened: Opened, file: Path) -> Ask:
    """Write the weights, with the config and what was learned as metadata; the answers of a model made of the file."""
    from safetensors.torch import load_model, save_model

    metadata = {
        "config": opened.run.job.config,
        "fitted_state": json.dumps(opened.data.fitted_state()),
        "format": "pt",
    }
    save_model(opened.answers.model, str(file), metadata)
    again = open_run(opened.run).answers
    with torch.no_grad():
        for parameter in again.model.parameters():
            parameter.zero_()
    load_model(again.model, str(file))
    return again


def quantize(file: Path, calibration: Tensor, target: Path) -> Ask:
    """Write the graph with int8 weights and activations, whose ranges are those that the samples show."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter(torch.split(calibration, BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"x": part.numpy()}

    prepared = target.with_name(f".{target.name}")
    try:
        quant_pre_process(str(file), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )
    finally:
        prepared.unlink(missing_ok=True)
    return onnx_runtime(target)


@torch.inference_mode()
def check(file: Path, ask: Ask, seen: Samples, classes: bool, bound: float | None) -> Exported:
    """Hold what a file answers against the original, in a batch and one by one, and measure its speed.

    Raises:
        CheckpointError: when they differ by more than `bound`; the file is removed.
    """
    answers = torch.cat([ask(seen.x), ask(seen.x[:1])])
    scale = 1.0 if classes else max(float(seen.right.std()), 1e-12)
    difference = float((answers - torch.cat([seen.right, seen.right[:1]])).abs().max()) / scale
    if bound is not None and not difference <= bound:  # also of NaN
        file.unlink()
        raise CheckpointError(
            f"{shown(file)}: its answers differ by {difference:.3g} from the run's, {bound:g} is allowed; "
            "not kept, --bound allows more"
        )
    batch = seen.x[:1].repeat(BATCH, *[1] * (seen.x.ndim - 1))
    return Exported(file, difference, timed(ask, seen.x[:1]), BATCH / timed(ask, batch))


@torch.inference_mode()
def timed(ask: Ask, x: Tensor) -> float:
    """The median of the seconds that an answer takes."""
    for _ in range(3):
        ask(x)
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        ask(x)
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


@torch.inference_mode()
def score(ask: Ask, seen: Samples, classes: bool) -> float:
    """Accuracy; of values the mean absolute error in standard deviations of the target."""
    answers = torch.cat([ask(part) for part in torch.split(seen.x, CHECKED)])
    if classes:
        return float((answers.argmax(1) == seen.y).float().mean())
    return float((answers - seen.right).abs().mean())


def prepared(opened: Opened) -> Answers:
    """The model as it answers fastest on a CPU."""
    answers: Any = channels_last(opened.answers)
    return answers  # type: ignore[no-any-return]
