"""Texts with a label each, wherever they lie."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hydra.utils import instantiate
from pyarrow import parquet

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.text_classification import TextClassification
from regente.errors import ConfigError, DataError
from tests.conftest import Ended
from tests.tiny_bert import VOCABULARY, save_csv, sentences, tiny_bert

OWN = [f"data.vocab_size={len(VOCABULARY)}", "data.max_tokens=24"]


def make(path: Path, *words: str) -> TextClassification:
    overrides = [f"data.path={path}", f"data.tokenizer={tiny_bert()}", "data.num_classes=3", *OWN, *words]
    config = resolve(compose("text_minilm", overrides).node)
    data: TextClassification = instantiate(config["data"], _convert_="all")
    return data


def read(path: Path, *words: str) -> TextClassification:
    data = make(path, *words)
    data.setup("fit")
    return data


def as_folders(root: Path) -> Path:
    for number, (text, label) in enumerate(sentences(90)):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return root


def as_parquet(file: Path) -> Path:
    texts, labels = zip(*sentences(90), strict=True)
    parquet.write_table(pa.table({"text": texts, "label": labels}), file)
    return file


def test_file_and_folder_hold_the_same(tmp_path: Path) -> None:
    files = [save_csv(tmp_path / "texts.csv"), as_parquet(tmp_path / "texts.parquet")]
    found: list[Any] = [read(path) for path in (*files, as_folders(tmp_path / "texts"))]
    for data in found:
        assert data.class_names == ["animals", "colours", "food"]
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 72, "val": 9, "test": 9}
    rows = [{bytes(row.numpy()) for row in data.splits["test"].x} for data in found]
    assert rows[0] == rows[1] == rows[2]


def test_tokens_are_those_of_the_tokenizer_padded_and_cut(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    long = "the " + " and ".join(["cat"] * 30)
    rows = [("red fox", "a"), ("zq", "b"), (long, "a"), ("cow", "b"), ("hen", "a"), ("ant", "b")]
    splits = ["train", "train", "val", "val", "test", "test"]
    lines = [f"{text},{label},{split}" for (text, label), split in zip(rows, splits, strict=True)]
    file.write_text("\n".join(["text,label,part", *lines]), encoding="utf-8")
    data = read(file, "data.num_classes=2", "data.split_column=part")
    number = VOCABULARY.index
    x = data.splits["train"].x
    assert x.dtype == torch.int32
    assert x.shape == (2, 24)
    assert x[0, :5].tolist() == [number("[CLS]"), number("red"), number("fox"), number("[SEP]"), 0]
    assert x[1, :4].tolist() == [number("[CLS]"), number("z"), number("##q"), number("[SEP]")]
    assert data.splits["val"].x[0, -1] == number("[SEP]")
    assert data.splits["val"].y.tolist() == [0, 1]


def test_the_carved_splits_are_those_of_the_texts_and_of_the_split_seed(tmp_path: Path) -> None:
    file = save_csv(tmp_path / "texts.csv")
    a, b, other = read(file, "seed=1"), read(file, "seed=2"), read(file, "data.split_seed=5")
    assert all(torch.equal(a.splits[name].x, b.splits[name].x) for name in a.splits)
    assert not torch.equal(a.splits["test"].x, other.splits["test"].x)
    assert "9 for val and 9 for test carved out of train" in " ".join(a.notes)
    sets = [{bytes(row.numpy()) for row in split.x} for split in a.splits.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def test_what_is_wrong_with_the_data_is_named(tmp_path: Path) -> None:
    file = save_csv(tmp_path / "texts.csv")
    for given, error, words in (
        (["data.text_column=txt"], DataError, r"data\.text_column=txt: no column 'txt'.*did you mean text\?"),
        (["data.num_classes=4"], ConfigError, r"data\.num_classes=3 would be right"),
        (["data.vocab_size=30522"], ConfigError, rf"data\.vocab_size={len(VOCABULARY)} would be right"),
        (["data.class_names=[animals,colours,foods]"], DataError, "the class 'food' is not among"),
        (["data.split_column=label"], DataError, "'animals' in row 1 is not a split"),
    ):
        with pytest.raises(error, match=words):
            read(file, *given)
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nope.csv")
    root = as_folders(tmp_path / "texts")
    (root / "food" / "bad.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"bad\.txt: byte 3 \(0xe9\) is not UTF-8"):
        read(root)
    (tmp_path / "few.csv").write_text("text,label\none,a\ntwo,b\nred,c\n")
    with pytest.raises(DataError, match="too few different samples"):
        read(tmp_path / "few.csv")


def test_lines_of_a_file_are_samples_for_predict(tmp_path: Path) -> None:
    data = read(save_csv(tmp_path / "texts.csv"))
    (tmp_path / "new.txt").write_text("the red fox\n\nbread and salt\n", encoding="utf-8")
    named = data.samples_of(tmp_path / "new.txt")
    assert [name.rpartition("/")[2] for name, _ in named] == ["new.txt:1", "new.txt:3"]
    assert named[0][1][:5].tolist() == [
        VOCABULARY.index(word) for word in ("[CLS]", "the", "red", "fox", "[SEP]")
    ]


def test_classes_are_counted_where_the_config_does_not_say(
    regente: Callable[..., Ended], project: Path
) -> None:
    file = save_csv(project / "texts.csv")
    assert regente("check", "text_minilm", f"data.path={file}").code == 0
    ended = regente("train", "text_minilm", f"data.path={file}", "--cfg", "job")
    assert ended.code == 0, ended.err
    ended = regente("check", "text_minilm")
    assert ended.code == 2
    assert "data.path: has no value; name a file or folder of texts" in ended.err
    ended = regente("check", "text_minilm", "data.path=/nope.csv")
    assert ended.code == 4
