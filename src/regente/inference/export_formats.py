"""The file formats of an export, with the preprocessing inside: ONNX, torch.export, safetensors. Imports torch."""

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
from torch import Tensor, nn

from regente.data.core.file_inputs import read_array
from regente.data.protocols import SupportsRawSplits
from regente.errors import CheckpointError, ConfigError, DataError, Problem, RegenteError, first_of
from regente.inference.predictor import LoadedRun, Predictor
from regente.jobs.job import EXAMPLE
from regente.jobs.runs import Run, shown
from regente.models.weights import load_model

BATCH, REPEATS = 64, 30  # samples of a batch, and calls, of a speed measurement
Predict = Callable[[Tensor], Tensor]
"""x [B, ...] as a file holds it -> y, as of `Predictor`."""


@dataclass(frozen=True)
class Samples:
    """Samples of a split as a file holds them, x [N, ...], their labels, and the run's own output for them.

    The output is computed on the path that the training uses, so that it checks the preprocessing of a file too.
    """

    x: Tensor
    label: Tensor
    output: Tensor


@dataclass(frozen=True)
class Exported:
    """An exported file, compared with the run."""

    file: Path
    difference: float  # the largest, of probabilities or in standard deviations of the target
    latency: float  # seconds for one sample
    throughput: float  # samples per second, in batches

    @property
    def megabytes(self) -> float:
        return self.file.stat().st_size / 1e6


@torch.no_grad()
def example(loaded: LoadedRun) -> Samples:
    """A sample or two as the model gets them: `example_input_array` of the task, or what the training kept of its first batch.

    Raises:
        ConfigError: when there is neither.
    """
    x = getattr(loaded.predictor.model, "example_input_array", None)
    if x is None and (kept := loaded.run.job.path / EXAMPLE).is_file():
        try:
            x = torch.from_numpy(read_array(kept))
        except (DataError, TypeError) as error:  # TypeError: torch has no such dtype
            raise DataError(f"{shown(kept)}: {error}; delete it, or name another run") from error
    if not isinstance(x, Tensor):
        what = "no example input: a batch holds no tensor that forward takes; give the task an example_input_array, a tensor"
        raise ConfigError([Problem(f"run {shown(loaded.run.job.path)}", what)])
    return Samples(x, torch.zeros(0), loaded.predictor(x))


@torch.no_grad()  # not inference_mode, whose tensors cannot be used for an export
def samples(loaded: LoadedRun, split: str, most: int) -> Samples:
    """The first samples of a split; of data that is not `SupportsRawSamples`, an `example`.

    Raises:
        DataError: when the run's data is not there.
    """
    data: Any = loaded.data
    if loaded.predictor.preprocessing is None:
        return example(loaded)
    if not isinstance(loaded.data, SupportsRawSplits):
        what = (
            f"{type(data).__name__} has preprocessing() but not splits and raw(), which the comparison takes"
        )
        raise ConfigError([Problem(f"run {shown(loaded.run.job.path)}", what)])
    if not data.splits:
        data.prepare_data()
        data.setup("test")
    raw, outputs, labels = [], [], []
    for index in torch.split(torch.arange(min(most, len(data.splits[split]))), BATCH):
        x, y = data.on_after_batch_transfer(data.splits[split].batch(index), 0)
        raw.append(data.raw(split, index))
        outputs.append(loaded.predictor.output(x))
        labels.append(y[:, -1] if y.ndim == 2 and loaded.class_names is not None else y)
    return Samples(torch.cat(raw), torch.cat(labels), torch.cat(outputs))


def export_torch(predictor: Predictor, example: Tensor, file: Path) -> Predict:
    """Write a torch.export program for any batch size; returns what is read back from the file."""
    with _exporting(file):
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(predictor, (example,), dynamic_shapes=shapes), file)
        loaded: Any = torch.export.load(file).module()
    return lambda x: loaded(x)


def export_onnx(predictor: Predictor, example: Tensor, file: Path, opset: int) -> Predict:
    """Write an ONNX graph x -> y for any batch size; returns the graph in ONNX Runtime."""
    with _exporting(file):
        torch.onnx.export(
            predictor,
            (example,),
            file,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["x"],
            output_names=["y"],
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    return onnx_runtime(file)


@contextmanager
def _exporting(file: Path) -> Iterator[None]:
    """Without torch's warnings, which concern recurrent layers that it exports correctly.

    Raises:
        RegenteError: when the model cannot be exported.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad(), redirect_stderr(StringIO()):  # it prints graphs
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise
    except Exception as error:  # torch.export, onnxscript and onnx each have many of their own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = f"the model cannot be exported to this format ({reason[:300]}); safetensors takes any model"
        raise RegenteError(f"{shown(file)}: {what}") from error


def onnx_runtime(file: Path) -> Predict:
    """An ONNX file in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def export_safetensors(run: Run, file: Path) -> nn.Module:
    """Write the weights, with config and fitted state as metadata; returns the model. No data is read.

    Raises:
        CheckpointError: when the file does not hold the run's weights, to the bit; it is removed.
    """
    from safetensors.torch import load_model as load_weights
    from safetensors.torch import save_model

    model, again = (load_model(run.job, run.checkpoint) for _ in range(2))
    metadata = {"config": run.job.config, "fitted_state": json.dumps(run.fitted_state or {}), "format": "pt"}
    save_model(model, str(file), metadata)
    with torch.no_grad():
        for tensor in again.state_dict().values():
            tensor.zero_()  # so that the comparison fails for weights that the file does not hold
    load_weights(again, str(file))
    found = again.state_dict()
    if other := [name for name, each in model.state_dict().items() if not same_bits(each, found[name])]:
        file.unlink()
        raise CheckpointError(f"{shown(file)}: {first_of(other)} read back differ; the file was removed")
    return model


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same, NaN included."""
    return a.shape == b.shape and torch.equal(
        *(each.detach().contiguous().flatten().view(torch.uint8) for each in (a, b))
    )


def quantize(file: Path, calibration: Tensor, target: Path) -> Predict:
    """Write an ONNX graph with int8 weights and activations; the ranges are those of the calibration samples."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter(torch.split(calibration, BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"x": part.numpy()}

    prepared = target.with_name(f".{target.name}")
    types = ["Conv", "MatMul", "Gemm"]
    try:
        quant_pre_process(str(file), str(prepared))
        quantize_static(
            str(prepared), str(target), Reader(),
            quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=types,
        )  # fmt: skip
    finally:
        prepared.unlink(missing_ok=True)
    return onnx_runtime(target)


@torch.inference_mode()
def compare(file: Path, predict: Predict, reference: Samples, classes: bool, bound: float | None) -> Exported:
    """Compare a file's outputs with the run's, in a batch and for one sample, and measure its speed.

    Raises:
        CheckpointError: when they differ by more than `bound`; the file is removed.
    """
    x, expected = reference.x, reference.output
    scale = 1.0 if classes else max(float(expected.std()), 1e-12)
    outputs = torch.cat([predict(x), predict(x[:1])])
    difference = float((outputs - torch.cat([expected, expected[:1]])).abs().max()) / scale
    if bound is not None and not difference <= bound:  # also for NaN
        file.unlink()
        raise CheckpointError(
            f"{shown(file)}: its outputs differ by {difference:.3g} from the run's, {bound:g} is allowed; "
            "the file was removed, a larger --bound allows more"
        )
    batch = x[:1].repeat(BATCH, *[1] * (x.ndim - 1))
    return Exported(file, difference, latency(predict, x[:1]), BATCH / latency(predict, batch))


@torch.inference_mode()
def latency(predict: Predict, x: Tensor) -> float:
    """The median seconds of a call."""
    for _ in range(3):
        predict(x)
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        predict(x)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


@torch.inference_mode()
def score(predict: Predict, test: Samples, classes: bool) -> float:
    """The accuracy; for values the mean absolute difference from the run's own outputs."""
    outputs = torch.cat([predict(part) for part in torch.split(test.x, 4 * BATCH)])
    if classes:
        return float((outputs.argmax(1) == test.label).float().mean())
    return float((outputs - test.output).abs().mean())
