"""The figures of a run, as SVG: a browser and MLflow's UI show them at any size."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from regente.tracking.svg import COLOURS, GREY, Drawing, Panel

FEW = 30  # points of a curve that are marked one by one
NUMBERED = 20  # up to so many classes the confusion matrix has numbers
MOST = 200  # with more classes a cell would be smaller than a pixel
DOTS = 2000  # values that are drawn against each other
COLUMNS, TILE, GAP, HEAD = (
    4,
    160,
    10,
    34,
)  # of the worst mistakes: in a row; pixels of one, beside and above it


def learning_curves(lines: list[dict[str, Any]]) -> str | None:
    """Training and validation metrics over the steps: one panel per metric (loss, acc, ...)."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["kind"] == "metrics":
            for name, value in line["values"].items():
                stage, _, kind = name.partition("/")
                if stage in ("train", "val") and kind and math.isfinite(value):
                    curves[kind][stage].append((line["step"], value))
    if not any("train" in stages for stages in curves.values()):
        return None
    drawing = Drawing(360 * len(curves), 290)
    for place, (kind, stages) in enumerate(curves.items()):
        points = [point for each in stages.values() for point in each]
        (low, high), (bottom, top) = ((min(each), max(each)) for each in zip(*points, strict=True))
        room = (360 * place, 0, 360, 290)
        panel = Panel(drawing, room, (low, high), (bottom, top), title=kind, labels=("step", ""))
        for colour, (stage, found) in zip(COLOURS, stages.items(), strict=False):
            panel.line(found, colour, dots=len(found) < FEW)
            panel.legend(stage, colour)
    return drawing.svg()


def learning_rates(found: dict[str, Any]) -> str:
    """The loss over the learning rate of the learning rate finder, with the rate that it found."""
    points = [pair for pair in zip(found["lr"], found["loss"], strict=True) if all(map(math.isfinite, pair))]
    given = {name: found[name] for name in ("found", "given") if found[name] is not None}
    losses = [loss for _, loss in points]
    rates = [*(rate for rate, _ in points), *given.values()]
    drawing = Drawing(480, 340)
    panel = Panel(
        drawing, (0, 0, 480, 340), (min(rates), max(rates)), (min(losses), max(losses)),
        labels=("learning rate", "train/loss of a batch"), logarithmic=True,
    )  # fmt: skip
    panel.line(points, COLOURS[0])
    for (name, rate), dashes in zip(given.items(), ("", "3 3"), strict=False):
        panel.line([(rate, panel.y[0]), (rate, panel.y[1])], GREY, dashes=dashes)
        panel.legend(f"{name} {rate:g}", GREY, dashes=dashes)
    return drawing.svg()


def outcomes(file: Path) -> dict[str, str | None]:
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


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, names: list[str]) -> str | None:
    """Rows are true classes, columns predicted ones; the colour is the share of the row. None for more than MOST classes."""
    size = max(len(names), int(label.max()) + 1, int(prediction.max()) + 1)
    if size > MOST:
        return None
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (label, prediction), 1)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    ticks = names if len(names) == size else [str(number) for number in range(size)]
    cell = max(4.0, min(34.0, 800 / size))
    room = 36 + (6.5 * max(map(len, ticks)) if size <= NUMBERED else 0)  # beside the names of the classes
    side, top = cell * size, 32
    drawing = Drawing(room + side + 16, top + side + room)
    # white to blue
    shades = np.array([255, 255, 255]) + share[..., None] * (np.array([8, 48, 107]) - 255)
    drawing.image(shades.astype(np.uint8), room, top, side, side)
    title = f"accuracy {np.trace(counts) / counts.sum():.2%} of {counts.sum()} samples"
    drawing.text(room + side / 2, 20, title, size=13)
    drawing.text(room + side / 2, top + side + room - 8, "predicted")
    drawing.text(14, top + side / 2, "true", more=f'transform="rotate(-90 14 {top + side / 2:.1f})"')
    if size <= NUMBERED:
        for place, name in enumerate(ticks):
            middle = cell * (place + 0.5)
            drawing.text(room - 6, top + middle + 4, name, anchor="end")
            x, y = room + middle + 4, top + side + 6
            drawing.text(x, y, name, anchor="end", more=f'transform="rotate(-90 {x:.1f} {y:.1f})"')
        for row, column in np.argwhere(counts):
            colour = 'fill="#fff"' if share[row, column] > 0.5 else ""
            x, y = room + cell * (column + 0.5), top + cell * (row + 0.5) + 4
            drawing.text(x, y, counts[row, column], more=colour)
    return drawing.svg()


def calibration(right: np.ndarray, confidence: np.ndarray) -> str:
    """Accuracy over confidence in ten bins (a reliability diagram); a calibrated model lies on the diagonal."""
    place = np.minimum((confidence * 10).astype(int), 9)
    counts = np.bincount(place, minlength=10)
    share = np.bincount(place, weights=right, minlength=10) / np.maximum(1, counts)
    title = f"accuracy {right.mean():.2%}, mean confidence {confidence.mean():.2%}"
    drawing = Drawing(460, 380)
    panel = Panel(drawing, (0, 0, 460, 380), (0, 1), (0, 1), title=title, labels=("confidence", "accuracy"))
    for bin_ in np.flatnonzero(counts):
        left, top = panel.at(bin_ / 10 + 0.005, share[bin_])
        right_, bottom = panel.at(bin_ / 10 + 0.095, 0)
        drawing.rectangle(left, top, right_ - left, bottom - top, COLOURS[0])
        drawing.text((left + right_) / 2, top - 3, f"{counts[bin_]:,}", size=10)
    panel.line([(0, 0), (1, 1)], GREY)
    return drawing.svg()


def predicted_against_true(label: np.ndarray, prediction: np.ndarray) -> str:
    """A point for each value, in the units of the data; perfect predictions lie on the diagonal."""
    error = np.abs(prediction - label).mean()
    ends = (float(min(label.min(), prediction.min())), float(max(label.max(), prediction.max())))
    pairs = np.stack([label.ravel(), prediction.ravel()], axis=1)
    shown = pairs[:: -(-len(pairs) // DOTS)]
    title = f"mean absolute error {error:.4g}, {len(pairs)} values"
    title += f", {len(shown)} shown" if len(shown) < len(pairs) else ""
    drawing = Drawing(480, 480)
    panel = Panel(drawing, (0, 0, 480, 480), ends, ends, title=title, labels=("true", "predicted"))
    panel.line([(ends[0], ends[0]), (ends[1], ends[1])], GREY)
    drawing.dots([panel.at(*pair) for pair in shown.tolist()], COLOURS[0], opacity=0.5)
    return drawing.svg()


def worst_mistakes(found: Any, names: list[str]) -> str | None:
    """The misclassified images with the largest loss; the titles are true > predicted class."""
    images, worst = found["inputs"], found["worst"]
    if images.ndim != 4 or len(images) == 0:
        return None
    step = TILE + GAP
    drawing = Drawing(COLUMNS * step + GAP, -(-len(images) // COLUMNS) * (step + HEAD))
    for place, (image, number) in enumerate(zip(images, worst, strict=False)):
        left, top = GAP + place % COLUMNS * step, HEAD + place // COLUMNS * (step + HEAD)
        height, width = (TILE * side / max(image.shape[1:]) for side in image.shape[1:])
        x, y = left + (TILE - width) / 2, top + (TILE - height) / 2
        drawing.image(_pixels(image), x, y, width, height)
        true, guess = (
            names[i] if i < len(names) else str(i)
            for i in (found["label"][number], found["prediction"][number])
        )
        drawing.text(left + TILE / 2, top - 18, f"#{number}: {true} > {guess}")
        drawing.text(left + TILE / 2, top - 5, f"loss {found['loss'][number]:.2f}", size=10)
    return drawing.svg()


def _pixels(image: np.ndarray) -> np.ndarray:
    """An image [c, h, w] of one or three channels as uint8; grey ones from their darkest to their brightest pixel."""
    shown = image.transpose(1, 2, 0).squeeze(-1) if len(image) == 1 else image.transpose(1, 2, 0)
    if shown.dtype == np.uint8 and shown.ndim == 3:
        return shown
    low, high = (float(shown.min()), float(shown.max())) if shown.ndim == 2 else (0.0, 1.0)
    scaled = (shown.astype(float) - low) / (high - low or 1.0)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)
