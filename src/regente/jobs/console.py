"""What a run prints: a header, notes and a closing table."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from regente.jobs.job import Job
from regente.jobs.result import split_of
from regente.jobs.runs import shown
from regente.jobs.streams import printable


def terminal(*, quiet: bool) -> Console:
    """The terminal; plain lines if stdout is a file or a pipe."""
    return Console(highlight=False, markup=False, soft_wrap=True, quiet=quiet)


def header(out: Console, job: Job) -> None:
    """Print the experiment and the overrides; of a resumed run also what was changed since its start."""
    since = [f"{key}={new}" for key, new in job.changes().items()]
    changes = printable(" ".join([*job.overrides, *(["then"] if since else []), *since]))
    out.print(Text.assemble((printable(job.experiment), "bold"), ("  " + changes if changes else "", "cyan")))


def setup(out: Console, parts: Any, notes: list[str]) -> None:
    """Print model, size, device and precision, and the notes."""
    trainer, model = parts.trainer, getattr(parts.task, "model", parts.task)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = f"{total:,} parameters" + ("" if trained == total else f", {trained:,} of them trainable")
    ranks = "" if trainer.world_size == 1 else f" x {trainer.world_size}"
    device = trainer.strategy.root_device.type
    shares = ""
    if (batch := getattr(parts.data, "batch_size", None)) and trainer.world_size > 1:
        shares = f"; batches of {batch} on each device, {batch * trainer.world_size} in all"
    out.print(
        f"{type(model).__name__} on {type(parts.data).__name__}, {size}; {device}{ranks}, {trainer.precision}{shares}"
    )
    for text in notes:
        note(out, text)


def note(out: Console, text: str) -> None:
    """Print something that a user should know but need not act on."""
    out.print(Text("note: " + text, style="yellow"))


def closing(out: Console, job: Job, result: dict[str, Any]) -> None:
    """Print the best epoch, its metrics, time, speed and the places of files."""
    rows = []
    if result["best_epoch"] is not None:
        rows.append(("best epoch", f"{result['best_epoch'] + 1} of {result['epochs']}"))
    for stage in ("train", "val", "test", ""):
        named = [(split_of(name), value) for name, value in result["metrics"].items()]
        found = [f"{name} {value:.4f}" for (split, name), value in named if split == stage]
        if found:
            rows.append((stage or "metrics", "  ".join(found)))
    rows.append(
        ("time", f"{result['seconds']:.1f} s, {result['samples_per_second']:,.0f} samples/s in training")
    )
    rows.append(
        ("weights", shown(Path(result["best_checkpoint"])) if result["best_checkpoint"] else "not kept")
    )
    if (job.path / "profile").is_dir():
        rows.append(
            ("profile", f"{shown(job.path / 'profile')}: operators.txt, trace.json for ui.perfetto.dev")
        )
    rows.append(("job", shown(job.path)))
    for name, text in rows:
        row(out, name, text)


def row(out: Console, name: str, text: str) -> None:
    """Print a line of the closing table."""
    out.print(Text.assemble((f"{name:<12}", "bold"), text))
