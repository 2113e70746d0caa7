"""The figures of a run."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

NUMBERED = 20  # up to so many classes the confusion matrix has numbers
MOST = 200  # with more classes a cell would be smaller than a pixel


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
    figure = Figure(figsize=(5 * len(curves), 3.5), layout="constrained")
    for panel, (kind, stages) in zip(np.ravel(figure.subplots(1, len(curves))), curves.items(), strict=True):
        for stage, points in stages.items():
            panel.plot(*zip(*points, strict=True), label=stage, marker="." if len(points) < 30 else None)
        panel.set(xlabel="step", title=kind)
        panel.legend(frameon=False)
    return figure


def learning_rates(found: dict[str, Any]) -> Figure:
    """The loss over the learning rate of the learning rate finder, with the rate that it found."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    panel = figure.subplots()
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
    side = min(12.0, 2.5 + 0.4 * size)
    figure = Figure(figsize=(side, side), layout="constrained")
    panel = figure.subplots()
    panel.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    panel.set(
        xlabel="predicted",
        ylabel="true",
        title=f"accuracy {np.trace(counts) / counts.sum():.2%} of {counts.sum()} samples",
    )
    if size <= NUMBERED:
        ticks = names if len(names) == size else [str(number) for number in range(size)]
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
    figure = Figure(figsize=(5, 4), layout="constrained")
    panel = figure.subplots()
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
    figure = Figure(figsize=(5, 5), layout="constrained")
    panel = figure.subplots()
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
    figure = Figure(figsize=(8, 2.3 * -(-len(images) // 4)), layout="constrained")
    panels = np.ravel(figure.subplots(-(-len(images) // 4), 4))
    for panel in panels:
        panel.axis("off")
    for panel, image, number in zip(panels, images, worst, strict=False):
        panel.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray" if image.shape[0] == 1 else None)
        true, guess = (
            names[i] if i < len(names) else str(i)
            for i in (found["label"][number], found["prediction"][number])
        )
        panel.set_title(f"#{number}: {true} > {guess}\nloss {found['loss'][number]:.2f}", size=8)
    return figure
