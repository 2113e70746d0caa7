"""The model card: what a model that leaves was made of, what it is worth and how it is used, in Markdown."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regente.config.environment import env_references
from regente.config.redaction import Redactor
from regente.inference.formats import Exported
from regente.inference.predictor import Answers, Opened
from regente.jobs.job import DATA, read_json

UNSAID = "unknown"  # a licence that only a person can state


def write_card(folder: Path, opened: Opened, files: Sequence[Exported], answers: Answers, x: Tensor) -> Path:
    """Write `README.md`, where Hugging Face and GitHub look for it. What a person must say is marked `unknown`."""
    job, metrics = opened.run.job, opened.run.result["metrics"]
    redact = Redactor((), env_references(job.config)).text
    data = read_json(job.path / DATA)
    name, size = type(answers.model).__name__, sum(each.numel() for each in answers.model.parameters())
    trained_on = data.get("name", type(opened.data).__name__)
    lines = [
        *("---", f"license: {UNSAID} # of the weights: yours to say", "tags: [pytorch, regente]", "---"),
        *(f"# {job.experiment}", ""),
        *(f"{name} with {size:,} parameters, trained on {trained_on}.", ""),
        *_table([*_shapes(opened, answers, x), *_origin(opened, data)]),
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


def _shapes(opened: Opened, answers: Answers, x: Tensor) -> list[tuple[str, str]]:
    """What goes in and what comes out."""
    with torch.inference_mode():
        y = answers(x[:1])
    classes = opened.names
    said = f"probabilities of {len(classes)} classes" if classes else "a value in the units of the data"
    inputs = f"{str(x.dtype).removeprefix('torch.')} {['B', *x.shape[1:]]}".replace("'", "")
    outputs = f"float32 {['B', *y.shape[1:]]}".replace("'", "")
    return [
        ("input", f"`x`, {inputs}, as files hold it: the preprocessing is inside"),
        ("output", f"`y`, {outputs}, {said}"),
        *([("classes", _short(classes))] if classes else []),
    ]


def _origin(opened: Opened, data: dict[str, Any]) -> list[tuple[str, str]]:
    """What it was made of, and under which licences."""
    job = opened.run.job
    samples = ", ".join(f"{number:,} {split}" for split, number in data.get("splits", {}).items())
    return [
        ("data", f"{data.get('source', UNSAID)}, digest {data.get('digest', UNSAID)}"),
        ("samples", samples or UNSAID),
        ("licence of the data", data_licence(opened.data)),
        ("licence of the weights", UNSAID),
        ("run", f"`{job.path.name}` of {job.created}"),
        ("intended use, limits", UNSAID),
    ]


def _measured(files: Sequence[Exported]) -> list[str]:
    """A table of the files: size, how exact, how fast."""
    return [
        "| file | MB | largest difference from the original | one sample, ms | samples/s |",
        "|---|---|---|---|---|",
        *(
            f"| {made.file.name} | {made.megabytes:.3f} | {made.difference:.2g} | {made.latency * 1e3:.2f} | {made.speed:,.0f} |"
            for made in files
        ),
    ]


def usage(file: str, x: Tensor) -> list[str]:
    """A program that asks the file, line by line."""
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
    """What the data module's description says of a licence."""
    text = " ".join((inspect.getdoc(type(data)) or "").split())
    found = re.search(r"Licence: ([^;.]*(?:\.\d[^;. ]*)*)", text) or re.search(r"\b(CC [A-Z-]+ \d\.\d)", text)
    return found[1].strip() if found else UNSAID


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]


def _short(names: Sequence[str], most: int = 100) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]).replace("|", "\\|") + more
