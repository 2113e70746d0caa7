"""The figures of a run: whole SVG whatever the names and numbers are, and no peak is lost."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from regente.tracking import figures
from regente.tracking.svg import MOST, thinned

NAMES = ["a<b&c", "\x01\x1b[31m", '"quoted"']


def texts(svg: str | None) -> list[str]:
    """The words of a figure, if it is well-formed."""
    assert svg is not None
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_figures_are_well_formed_with_any_names(tmp_path: Path) -> None:
    label = np.array([0, 1, 2, 2])
    kept: dict[str, Any] = {
        "label": label, "prediction": np.array([0, 1, 1, 0]), "confidence": np.array([0.9, 1.0, 0.6, 0.0]),
        "loss": np.array([0.1, 0.2, 3.0, 4.0]), "worst": np.array([3, 2]),
        "inputs": np.zeros((2, 3, 4, 5), np.uint8), "names": np.array(NAMES),
    }  # fmt: skip
    np.savez(tmp_path / "test.npz", **kept)
    made = figures.outcomes(tmp_path / "test.npz")
    assert "a<b&c" in texts(made["confusion_matrix"])
    assert texts(made["confusion_matrix"])[0] == "accuracy 50.00% of 4 samples"
    assert '#3: "quoted" > a<b&c' in texts(made["worst_mistakes"])
    assert texts(made["calibration"])[-3:] == ["1", "1", "2"]  # samples in the bins of 0, 0.6 and 0.9
    np.savez(tmp_path / "val.npz", label=np.array([1.0, 2.0]), prediction=np.array([1.5, 2.0]))
    assert "mean absolute error 0.25, 2 values" in texts(
        figures.outcomes(tmp_path / "val.npz")["predicted_against_true"]
    )


def test_curves_are_drawn_of_finite_values_and_of_a_single_one() -> None:
    lines = [
        {"kind": "metrics", "step": 1, "values": {"train/loss": 1.0, "val/acc": float("nan")}},
        {"kind": "metrics", "step": 2, "values": {"train/loss": float("inf")}},
    ]
    assert "loss" in texts(figures.learning_curves(lines))
    assert figures.learning_curves([{"kind": "metrics", "step": 1, "values": {"val/acc": 1.0}}]) is None
    found = {"lr": [1e-3, 1e-2], "loss": [2.0, float("nan")], "found": None, "given": None}
    assert "learning rate" in texts(figures.learning_rates(found))


def test_a_long_curve_keeps_its_peaks() -> None:
    points = [(float(step), 0.0) for step in range(100 * MOST)]
    points[777] = (777.0, 9.0)
    kept = thinned(points)
    assert len(kept) <= MOST
    assert (777.0, 9.0) in kept
