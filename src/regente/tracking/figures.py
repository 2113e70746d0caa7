"""The figures of a run.

Margins are fixed: to find them, matplotlib's layouts draw each figure twice, half of the CPU time of a small run's figures.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

NUMBERED = 20  # up to so many classes the confusion matrix has numbers
MOST = 200  # with more classes a cell would be smaller than a pixel
COLUMNS, GAP, HEAD = (
    4,
    0.08,
    0.3,
)  # of the worst mistakes: in a row; between them and above them, in widths of one


def _figure(width: float, height: float, panels: int = 1) -> tuple[Figure, Any]:
    """A figure, in inches, with panels side by side, and room for their labels."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, panels)
    left, each = 0.75, width / panels
    figure.subplots_adjust(
        left=left / width,
        right=1 - 0.15 / width,
        bottom=0.55 / height,
        top=1 - 0.4 / height,
        wspace=left / (each - left),
    )
    return figure, axes


def learning_curves(lines: list[dict[str, Any]]) -> Figure | None:
    """Training and validation metrics over the steps: one panel per metric (loss, acc, ...)."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["kind"] == "metrics":
            for name, value in line["values"].items():
                stage, _, kind = name.partition("/")
                if stage in ("train", "val") and kind:
                    curves[kind][stage].append((line["step"], value))
    if not any("train" in stages for stages in curves.values()):
        return None
    figure, panels = _figure(4 * len(curves), 3.2, len(curves))
    for panel, (kind, stages) in zip(np.ravel(panels), curves.items(), strict=True):
        for stage, points in stages.items():
            panel.plot(*zip(*points, strict=True), label=stage, marker="." if len(points) < 30 else None)
        panel.set(xlabel="step", title=kind)
        panel.locator_params(nbins=5)
        panel.ticklabel_format(axis="y", scilimits=(-2, 4), useOffset=False)
        panel.legend(frameon=False)
    return figure


def learning_rates(found: dict[str, Any]) -> Figure:
    """The loss over the learning rate of the learning rate finder, with the rate that it found."""
    figure, panel = _figure(5, 3.5)
    panel.plot(found["lr"], found["loss"])
    panel.set(xscale="log", xlabel="learning rate", ylabel="train/loss of a batch")
    for name, style in (("found", "-"), ("given", ":")):
        if found[name] is not None:
            panel.axvline(found[name], color="0.4", linestyle=style, label=f"{name} {found[name]:g}")
    panel.legend(frameon=False)
    return figure


def outcomes(file: Path) -> dict[str, Figure | None]:
    """Figures of the file that `SamplePredictions` writes, for classes or for values."""
    with np.load(file) as found:
        if found["label"].dtype.kind == "f":
            return {"predicted_against_true": predicted_against_true(found["label"], found["prediction"])}
        names = [str(name) for name in found["names"]]
        return {
            "confusion_matrix": confusion_matrix(found["label"], found["prediction"], names),
            "worst_mistakes": worst_mistakes(found, names),
            "calibration": calibration(found["label"] == found["prediction"], found["confidence"]),
        }


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, names: list[str]) -> Figure | None:
    """Rows are true classes, columns predicted ones; the colour is the share of the row. None for more than MOST classes."""
    size = max(len(names), int(label.max()) + 1, int(prediction.max()) + 1)
    if size > MOST:
        return None
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (label, prediction), 1)
    ticks = names if len(names) == size else [str(number) for number in range(size)]
    side = min(12.0, 2.5 + 0.4 * size)
    room = (
        0.5 + 0.085 * max(map(len, ticks)) if size <= NUMBERED else 0.6
    )  # inches beside the names of the classes
    figure = Figure(figsize=(side + room, side + room))
    panel = figure.add_axes(
        (room / (side + room), room / (side + room), 0.97 - room / (side + room), 0.94 - room / (side + room))
    )
    panel.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    panel.set(
        xlabel="predicted",
        ylabel="true",
        title=f"accuracy {np.trace(counts) / counts.sum():.2%} of {counts.sum()} samples",
    )
    if size <= NUMBERED:
        panel.set_xticks(range(size), ticks, rotation=90)
        panel.set_yticks(range(size), ticks)
        for row, column in np.argwhere(counts):
            dark = counts[row, column] > 0.5 * counts[row].sum()
            panel.text(
                column, row, counts[row, column], ha="center", va="center", color="w" if dark else "k", size=8
            )
    return figure


def calibration(right: np.ndarray, confidence: np.ndarray) -> Figure:
    """Accuracy over confidence in ten bins (a reliability diagram); a calibrated model lies on the diagonal."""
    figure, panel = _figure(5, 4)
    place = np.minimum((confidence * 10).astype(int), 9)
    counts = np.bincount(place, minlength=10)
    share = np.bincount(place, weights=right, minlength=10) / np.maximum(1, counts)
    panel.bar(np.arange(10) / 10 + 0.05, share, width=0.09, color="C0")
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for bin_, number in enumerate(counts):
        if number:
            panel.text(bin_ / 10 + 0.05, share[bin_], f"{number:,}", ha="center", va="bottom", size=7)
    title = f"accuracy {right.mean():.2%}, mean confidence {confidence.mean():.2%}"
    panel.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.08), title=title)
    return figure


def predicted_against_true(label: np.ndarray, prediction: np.ndarray) -> Figure:
    """A point for each value, in the units of the data; perfect predictions lie on the diagonal."""
    figure, panel = _figure(5, 5)
    error = np.abs(prediction - label).mean()
    ends = [min(label.min(), prediction.min()), max(label.max(), prediction.max())]
    panel.plot(ends, ends, color="0.6", linewidth=1)
    panel.scatter(label.ravel(), prediction.ravel(), s=6, alpha=0.5, edgecolors="none")
    panel.set_aspect("equal")
    panel.set(
        xlabel="true", ylabel="predicted", title=f"mean absolute error {error:.4g}, {label.size} values"
    )
    return figure


def worst_mistakes(found: Any, names: list[str]) -> Figure | None:
    """The misclassified images with the largest loss; the titles are true > predicted class."""
    images, worst = found["inputs"], found["worst"]
    if images.ndim != 4 or len(images) == 0:
        return None
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, (2 + 2 * HEAD) * rows))
    panel = figure.add_axes((0, 0, 1, 1))  # one for all, since each costs more than its image
    panel.axis("off")
    for place, (image, number) in enumerate(zip(images, worst, strict=False)):
        x, y = place % COLUMNS + 0.5, place // COLUMNS * (1 + HEAD) + HEAD + 0.5  # the centre of the image
        depth, height, width = image.shape
        half = np.array([width, height]) / max(width, height) / 2 - GAP
        extent = (x - half[0], x + half[0], y + half[1], y - half[1])
        shown = image.transpose(1, 2, 0).squeeze()
        panel.imshow(shown, cmap="gray" if depth == 1 else None, extent=extent, aspect="auto")
        true, guess = (
            names[i] if i < len(names) else str(i)
            for i in (found["label"][number], found["prediction"][number])
        )
        text = f"#{number}: {true} > {guess}\nloss {found['loss'][number]:.2f}"
        panel.text(x, y - 0.5, text, ha="center", va="bottom", size=8)
    panel.set(xlim=(0, COLUMNS), ylim=(rows * (1 + HEAD), 0))  # imshow changes them
    return figure
