"""A run is asked about files: the answers are the model's own, and what cannot be read is left out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from regente.data.digits import Digits
from regente.data.series import synthetic_series
from regente.errors import DataError
from regente.inference.predict import predict
from regente.inference.predictor import load_run
from regente.jobs.runs import find
from tests.conftest import Ended

Run = Callable[..., Ended]
QUICK = ["trainer=debug", "tracking=none"]


def original(project: Path, split: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of the latest run's data, and what its model makes of them, on the way that training takes."""
    opened = load_run(find("latest", project))
    opened.data.prepare_data()
    opened.data.setup("test")
    index = torch.arange(number)
    with torch.inference_mode():
        x, _ = opened.data.on_after_batch_transfer(opened.data.splits[split].batch(index), 0)
        return opened.data.raw(split, index), opened.predictor.output(x)


def test_images_and_arrays_get_the_probabilities_of_the_model_and_bad_files_are_listed(
    regente: Run, project: Path
) -> None:
    assert regente("train", "digits_mlp", *QUICK).code == 0
    x, y = original(project, "test", 5)
    np.savez(project / "own.npz", x=x.numpy())
    for number in range(3):
        (project / "photos" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[number, 0].numpy()).save(project / f"photos/deep/{number}.png")
    (project / "photos/bad.jpg").write_text("no image")
    (project / "photos/notes.txt").write_text("not looked at")
    np.savez(project / "wrong.npz", x=np.zeros((2, 3, 8, 8), np.uint8))
    words = ["predict", "digits_mlp", "own.npz", "photos", "wrong.npz", "gone.png", "photos/notes.txt"]
    ended = regente(*words, "--out", "answers.csv")
    assert ended.code == 4
    assert ended.lines == [
        "4 inputs cannot be read:",
        "photos/bad.jpg: not an image",
        "wrong.npz: uint8 [2, 3, 8, 8]; uint8 [N, 1, 28, 28] would be right",
        "gone.png: no such file",
        "photos/notes.txt: unknown file type; the run reads " + ", ".join(Digits.suffixes),
    ]
    rows = list(csv.DictReader((project / "answers.csv").read_text().splitlines()))
    assert [row["input"] for row in rows] == [f"own.npz[{n}]" for n in range(5)] + [
        f"photos/deep/{n}.png" for n in range(3)
    ]
    for row, right in zip(rows, [*y, *y[:3]], strict=True):
        found = torch.tensor([float(row[f"p({digit})"]) for digit in range(10)])
        assert torch.allclose(found, right, atol=1e-6)
        assert row["prediction"] == str(int(right.argmax()))
        assert float(row["probability"]) == pytest.approx(float(right.max()), abs=1e-6)

    assert regente("predict", "latest", "own.npz", "--out", "answers.parquet").code == 0
    assert (
        parquet.read_table(project / "answers.parquet").to_pylist()[0]["prediction"] == rows[0]["prediction"]
    )
    ended = regente("predict", "latest", "own.npz")
    assert ended.out.splitlines()[1].startswith(f"own.npz[1]  {rows[1]['prediction']} ")
    for wrong in ("answers.xls", "nowhere/answers.csv"):
        ended = regente("predict", "latest", "own.npz", "--out", wrong)
        assert ended.code == 2
        assert len(ended.lines) == 1
    assert regente("predict", "latest", "gone.png").code == 4


def test_words_and_lines_of_text_are_gone_on_with(regente: Run, project: Path) -> None:
    assert regente("train", "text_lstm", *QUICK, "model.hidden=8").code == 0
    (project / "lines.txt").write_text("The value of the\n\nis\n" + "word " * 30 + "\n")
    made = predict(find("latest", project), ["lines.txt", "the value of the", "missing.txt"])
    assert [line["input"] for line in made.rows] == [
        "lines.txt:1",
        "lines.txt:3",
        "lines.txt:4",
        "the value of the",
    ]
    assert made.unreadable == ["missing.txt: no such file"]
    first, last = made.rows[0], made.rows[-1]
    assert {key: first[key] for key in first if key != "input"} == {
        key: last[key] for key in last if key != "input"
    }
    assert first["probability"] >= first["probability_2"] >= first["probability_5"] > 0
    assert "prediction_6" not in first


def test_a_series_is_forecast_in_its_own_units_from_every_window(regente: Run, project: Path) -> None:
    assert regente("train", "series_forecast", *QUICK).code == 0
    _, y = original(project, "train", 4)
    table = {name: values[:40] for name, values in synthetic_series().items()}
    text = ",".join(table) + "\n" + "".join(f"{a},{b}\n" for a, b in zip(*table.values(), strict=True))
    (project / "series.csv").write_text(text)
    (project / "short.csv").write_text("".join(text.splitlines(keepends=True)[:5]))
    (project / "other.csv").write_text("rain,wind\n1,2\n")
    ended = regente("predict", "latest", "series.csv", "short.csv", "other.csv", "--out", "out.json")
    assert ended.code == 4
    assert ended.lines[1:] == [
        "short.csv: 4 rows; the model takes windows of 32",
        "other.csv: a column: no column 'load' in other.csv; there is: rain, wind",
    ]
    lines = json.loads((project / "out.json").read_text())
    assert [line["input"] for line in lines] == [f"series.csv:{row}" for row in range(32, 41)]
    assert [line["prediction"] for line in lines[:4]] == pytest.approx(y.flatten().tolist(), abs=1e-3)


def test_the_facts_that_a_run_has_learned_replace_its_data(regente: Run, project: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(5, 3, (40, 4)), draw.integers(0, 3, 40)
    np.savez(project / "own.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    own = ["data=arrays", f"data.path={project}/own.npz", "data.num_classes=3", "data.input_shape=[4]"]
    assert regente("train", "digits_mlp", *QUICK, *own).code == 0
    _, right = original(project, "test", 10)
    (project / "own.npz").unlink()
    rows = "a,b,c,d\n" + "".join(",".join(map(repr, row.tolist())) + "\n" for row in x[30:])
    (project / "rows.csv").write_text(rows)
    made = predict(find("latest", project), ["rows.csv"])
    found = torch.tensor([[line[f"p({n})"] for n in range(3)] for line in made.rows])
    assert torch.allclose(found, right, atol=1e-6)


def test_an_array_of_python_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    digits = Digits(
        batch_size=8, num_classes=10, input_shape=[1, 28, 28], class_names=None, mean=[0.3], std=[0.3]
    )
    with pytest.raises(DataError, match="cannot be read as arrays"):
        digits.samples_of(tmp_path / "bad.npz")
