"""Arrays of one's own, whole and faulty."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.arrays import Arrays
from regente.errors import ConfigError, DataError

pytestmark = pytest.mark.slow  # not in `make quick`

DRAW = np.random.default_rng(0)


def arrays(shape: tuple[int, ...] = (8, 8), **others: Any) -> dict[str, Any]:
    """60 training and 20 test images, with some arrays changed, and those that are None left out."""
    made = {
        "x_train": DRAW.integers(0, 256, (60, *shape), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": DRAW.integers(0, 256, (20, *shape), dtype=np.uint8),
        "y_test": np.arange(20) % 3,
    }
    return {name: array for name, array in {**made, **others}.items() if array is not None}


def make(path: Path, *words: str, shape: str = "[1,8,8]") -> Arrays:
    overrides = [
        "data=arrays",
        f"data.path={path}",
        "data.num_classes=3",
        f"data.input_shape={shape}",
        *words,
    ]
    data = instantiate(resolve(compose("digits_cnn", overrides).node)["data"], _convert_="all")
    assert isinstance(data, Arrays)
    data.prepare_data()
    data.setup("fit")
    return data


def saved(folder: Path, content: dict[str, Any]) -> Path:
    np.savez(folder / "own.npz", **content)
    return folder / "own.npz"


def test_a_tenth_of_the_training_samples_validates_where_the_file_has_no_x_val(tmp_path: Path) -> None:
    content = arrays()
    data = make(saved(tmp_path, content), "data.batch_size=16")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 54, "val": 6, "test": 20}
    both = torch.cat([data.splits["train"].x, data.splits["val"].x]).squeeze(1)
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, content["x_train"]))
    again = make(tmp_path / "own.npz", "data.split_seed=1", "data.num_val=6")
    assert not torch.equal(data.splits["val"].x, again.splits["val"].x)


def test_a_validation_split_of_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    val = {"x_val": DRAW.integers(0, 256, (5, 8, 8), dtype=np.uint8), "y_val": np.zeros(5, dtype=bool)}
    data = make(saved(tmp_path, arrays(**val)))
    assert torch.equal(data.splits["val"].x.squeeze(1), torch.from_numpy(val["x_val"]))
    assert len(data.splits["train"]) == 60


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (3, 4, 6)), ("NHWC", (4, 6, 3))])
def test_channels_lie_where_layout_says(layout: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    content = arrays(shape)
    data = make(saved(tmp_path, content), f"data.layout={layout}", shape="[3,4,6]")
    got, want = data.splits["test"].x, torch.from_numpy(content["x_test"])
    assert torch.equal(got, want if layout == "NCHW" else want.permute(0, 3, 1, 2))
    assert got.is_contiguous()


def test_rows_of_a_table_are_normalised_column_by_column(tmp_path: Path) -> None:
    def table(rows: int) -> np.ndarray:
        return np.column_stack([DRAW.normal(5, 2, rows), DRAW.normal(-100, 30, rows), np.ones(rows)])

    data = make(saved(tmp_path, arrays(x_train=table(60), x_test=table(20))), "model=mlp", shape="[3]")
    x = data.normalise(data.splits["train"].x)
    assert x.dtype == torch.float32
    assert x.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert x.std(0, correction=0).tolist() == pytest.approx([1, 1, 0], abs=1e-5)


FAULTS = [
    ({"y_test": None, "x_test": None}, r"has no x_test, y_test; there is: x_train, y_train"),
    ({"x_val": np.zeros((2, 8, 8), np.uint8)}, r"has no y_val; there is"),
    ({"y_train": np.arange(59)}, r"x_train \[60, 8, 8\], y_train \[59\]: different lengths"),
    ({"x_test": np.zeros((20, 8, 8))}, r"x is float64; uint8 \[N, H, W\].* would be right"),
    ({"x_train": np.full((60, 4), np.nan)}, r"x holds NaN or infinity, first in row 0"),
    ({"y_test": np.arange(20) / 2}, r"y is float64; whole numbers \[N\] would be right"),
    ({"y_test": np.arange(20) - 1}, r"a label is -1; labels from 0 on"),
    ({"x_test": np.zeros((0, 8, 8), np.uint8), "y_test": np.zeros(0, int)}, r"empty; at least one sample"),
    ({"y_train": np.array([None] * 60)}, r"y_train holds Python objects"),
]


@pytest.mark.parametrize(("change", "words"), FAULTS)
def test_a_fault_of_the_file_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = saved(tmp_path, arrays(**change))
    with pytest.raises(DataError, match=rf"data.path={path}: .*{words}") as error:
        make(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_cut_short_or_no_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.path=/nope.npz: no such file"):
        make(Path("/nope.npz"))
    path = saved(tmp_path, arrays())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=rf"{path}: cannot be read"):
        make(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="one array without a name"):
        make(tmp_path / "one.npy")


def test_what_is_declared_is_held_against_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, arrays())
    with pytest.raises(ConfigError, match=r"data.num_classes: 2, but a label is 2"):
        make(path, "data.num_classes=2")
    with pytest.raises(ConfigError, match=r"data.input_shape: \[3, 8, 8\], but samples are \[1, 8, 8\]"):
        make(path, shape="[3,8,8]")
    with pytest.raises(ConfigError, match=r"data.mean: 3 numbers; 1, one for each channel, would be right"):
        make(path, "data.mean=[1,2,3]")
    with pytest.raises(DataError, match=r"data.num_val=60: nothing left to train on"):
        make(path, "data.num_val=60")
    assert make(path).notes == []
    few = "the training split has samples of 3 of 5 classes; the others cannot be learned"
    assert make(path, "data.num_classes=5").notes == [few]


def test_what_has_no_value_is_said_once() -> None:
    with pytest.raises(ConfigError) as error:
        resolve(compose("digits_cnn", ["data=arrays"]).node)
    assert [problem.where for problem in error.value.problems] == [
        "data.path",
        "data.num_classes",
        "data.input_shape",
    ]
