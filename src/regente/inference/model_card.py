"""The model card of an export in Markdown: origin of the model, its metrics, and how to use it."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regente.config.environment import env_references
from regente.config.redaction import Redactor
from regente.errors import first_of
from regente.inference.export_formats import Exported
from regente.inference.predictor import LoadedRun
from regente.jobs.job import DATA, read_json

UNKNOWN = "unknown"  # only a person can fill this in


def write_card(folder: Path, loaded: LoadedRun, files: Sequence[Exported], x: Tensor) -> Path:
    """Write `README.md`, which Hugging Face and GitHub show. What a person has to fill in is marked `unknown`."""
    job, metrics = loaded.run.job, loaded.run.result["metrics"]
    redact = Redactor((), env_references(job.config)).text
    data = read_json(job.path / DATA)
    model = loaded.predictor.model
    name, size = type(model).__name__, sum(each.numel() for each in model.parameters())
    trained_on = data.get("name", type(loaded.data).__name__)
    lines = [
        *("---", f"license: {UNKNOWN} # of the weights: to be filled in", "tags: [pytorch, regente]", "---"),
        *(f"# {job.experiment}", ""),
        *(f"{name} with {size:,} parameters, trained on {trained_on}.", ""),
        *_table([*_shapes(loaded, x), *_origin(loaded, data)]),
        *("", "## Metrics", ""),
        *_table([(name, f"{value:.4f}") for name, value in metrics.items()]),
        *("", "## Files", ""),
        *_measured(files),
        *("", "```python", *usage(files[0].file.name, x), "```"),
        *("", "## Config", "", "```yaml", redact(job.config).rstrip(), "```"),
    ]
    card = folder / "README.md"
    card.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return card


def _shapes(loaded: LoadedRun, x: Tensor) -> list[tuple[str, str]]:
    """Input and output."""
    with torch.inference_mode():
        y = loaded.predictor(x[:1])
    classes = loaded.class_names
    output = f"probabilities of {len(classes)} classes" if classes else "a value in the units of the data"
    inputs = f"{str(x.dtype).removeprefix('torch.')} {['B', *x.shape[1:]]}".replace("'", "")
    outputs = f"float32 {['B', *y.shape[1:]]}".replace("'", "")
    return [
        ("input", f"`x`, {inputs}, as files hold it; the preprocessing is included"),
        ("output", f"`y`, {outputs}, {output}"),
        *([("classes", first_of(classes, 100).replace("|", "\\|"))] if classes else []),
    ]


def _origin(loaded: LoadedRun, data: dict[str, Any]) -> list[tuple[str, str]]:
    """The data, the licences and the run."""
    job = loaded.run.job
    samples = ", ".join(f"{number:,} {split}" for split, number in data.get("splits", {}).items())
    return [
        ("data", f"{data.get('source', UNKNOWN)}, digest {data.get('digest', UNKNOWN)}"),
        ("samples", samples or UNKNOWN),
        ("licence of the data", data_licence(loaded.data)),
        ("licence of the weights", UNKNOWN),
        ("run", f"`{job.path.name}` of {job.created}"),
        ("intended use, limits", UNKNOWN),
    ]


def _measured(files: Sequence[Exported]) -> list[str]:
    """A table of the files: size, difference and speed."""
    return [
        "| file | MB | largest difference from the run | one sample, ms | samples/s |",
        "|---|---|---|---|---|",
        *(
            f"| {each.file.name} | {each.megabytes:.3f} | {each.difference:.2g} "
            f"| {each.latency * 1e3:.2f} | {each.throughput:,.0f} |"
            for each in files
        ),
    ]


def usage(file: str, x: Tensor) -> list[str]:
    """The lines of a program that uses the file."""
    shape, dtype = (8, *x.shape[1:]), str(x.dtype).removeprefix("torch.")
    if file.endswith(".onnx"):
        return [
            "import numpy, onnxruntime",
            f'session = onnxruntime.InferenceSession("{file}")',
            f'y = session.run(None, {{"x": numpy.zeros({shape}, dtype="{dtype}")}})[0]',
        ]
    if file.endswith(".pt2"):
        return [
            "import torch",
            f'model = torch.export.load("{file}").module()',
            f"y = model(torch.zeros({shape}, dtype=torch.{dtype}))",
        ]
    return ["from safetensors.torch import load_file", f'weights = load_file("{file}")']


def data_licence(data: Any) -> str:
    """The licence in the docstring of the data module."""
    text = " ".join((inspect.getdoc(type(data)) or "").split())
    found = re.search(r"Licence: ([^;.]*(?:\.\d[^;. ]*)*)", text) or re.search(r"\b(CC [A-Z-]+ \d\.\d)", text)
    return found[1].strip() if found else UNKNOWN


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
