"""The model card of an export in Markdown: origin of the model, its metrics, and how to use it."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regente.config.environment import env_references
from regente.config.redaction import Redactor
from regente.errors import first_of
from regente.inference.export_formats import Exported
from regente.inference.predictor import LoadedRun
from regente.jobs.job import DATA, read_json
from regente.jobs.runs import Run

UNKNOWN = "unknown"  # only a person can fill this in


def write_card(
    folder: Path,
    run: Run,
    model: nn.Module,
    file: Path,
    example: tuple[LoadedRun, Tensor] | None = None,
    measured: Sequence[Exported] = (),
) -> Path:
    """Write `README.md`, which Hugging Face and GitHub show. What a person has to fill in is marked `unknown`.

    `example`: the loaded run and inputs, where the file is a program that takes them.
    """
    job = run.job
    redact = Redactor((), env_references(job.config)).text
    data = read_json(job.path / DATA)
    name, size = type(model).__name__, sum(each.numel() for each in model.parameters())
    trained_on = data.get("name") or job.choices.get("data", UNKNOWN)
    lines = [
        *("---", f"license: {UNKNOWN} # of the weights: to be filled in", "tags: [pytorch, regente]", "---"),
        *(f"# {job.experiment}", ""),
        *(f"{name} with {size:,} parameters, trained on {trained_on}.", ""),
        *_table([*(_shapes(*example) if example else []), *_origin(run, data, example and example[0].data)]),
        *("", "## Metrics", ""),
        *_table([(name, f"{value:.4f}") for name, value in run.metrics.items()]),
        *("", "## Files", ""),
        *(_measured(measured) if measured else [file.name]),
        *("", "```python", *usage(file.name, example and example[1]), "```"),
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
    raw = loaded.predictor.preprocessing is not None
    held = "files hold it; the preprocessing is included" if raw else "a batch of the data holds it"
    output = f"probabilities of {len(classes)} classes" if classes else "a value in the units of the data"
    output = output if raw else "as the model gives it"
    inputs = f"{str(x.dtype).removeprefix('torch.')} {['B', *x.shape[1:]]}".replace("'", "")
    outputs = f"float32 {['B', *y.shape[1:]]}".replace("'", "")
    return [
        ("input", f"`x`, {inputs}, as {held}"),
        ("output", f"`y`, {outputs}, {output}"),
        *([("classes", first_of(classes, 100).replace("|", "\\|"))] if classes else []),
    ]


def _origin(run: Run, data: dict[str, Any], module: Any) -> list[tuple[str, str]]:
    """The data, the licences and the run."""
    job = run.job
    samples = ", ".join(f"{number:,} {split}" for split, number in data.get("splits", {}).items())
    return [
        ("data", f"{data.get('source', UNKNOWN)}, digest {data.get('digest', UNKNOWN)}"),
        ("samples", samples or UNKNOWN),
        ("licence of the data", data_licence(module) if module is not None else UNKNOWN),
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


def usage(file: str, x: Tensor | None) -> list[str]:
    """The lines of a program that uses the file."""
    if x is None:
        return ["from safetensors.torch import load_file", f'weights = load_file("{file}")']
    shape, dtype = (8, *x.shape[1:]), str(x.dtype).removeprefix("torch.")
    if file.endswith(".onnx"):
        return [
            "import numpy, onnxruntime",
            f'session = onnxruntime.InferenceSession("{file}")',
            f'y = session.run(None, {{"x": numpy.zeros({shape}, dtype="{dtype}")}})[0]',
        ]
    return [
        "import torch",
        f'model = torch.export.load("{file}").module()',
        f"y = model(torch.zeros({shape}, dtype=torch.{dtype}))",
    ]


def data_licence(data: Any) -> str:
    """The licence in the docstring of the data module."""
    text = " ".join((inspect.getdoc(type(data)) or "").split())
    found = re.search(r"Licence: ([^;.]*(?:\.\d[^;. ]*)*)", text) or re.search(r"\b(CC [A-Z-]+ \d\.\d)", text)
    return found[1].strip() if found else UNKNOWN


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
