from pathlib import Path
from typing import Any

import pytest
import torch

from regente.data.core.sources import Windows
from regente.data.core.vocabulary import UNKNOWN, detokenise, read_vocabulary, tokenise, write_vocabulary
from regente.data.text import Text
from regente.errors import ConfigError, DataError

POEM = "The sun is up, the sky is blue (it's beautiful). And so are you: 3.14! "


def text(path: Path | None = None, **arguments: Any) -> Text:
    facts: dict[str, Any] = {"batch_size": 8, "vocab_size": 12, "window": 4, **arguments}
    facts |= {"num_classes": facts["vocab_size"], "input_shape": [facts["window"]]}
    return Text(path=str(path) if path else None, **facts)


def read(path: Path | None = None, **arguments: Any) -> Text:
    data = text(path, **arguments)
    data.setup("fit")
    return data


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    (tmp_path / "poem.txt").write_text(POEM * 20)
    return tmp_path / "poem.txt"


def test_a_text_is_words_in_lower_case_and_marks() -> None:
    assert tokenise("Don't stop, at 3.14 (well-known)... str.join()!") == [
        *("don't", "stop", ",", "at", "3.14", "(", "well-known", ")", ".", ".", "."),
        *("str.join", "(", ")", "!"),
    ]


def test_words_become_a_readable_text_of_the_same_words() -> None:
    words = tokenise(POEM + 'he said "yes, of course" to a [list] of ; things … -1 - 1 "')
    assert detokenise(words).startswith(
        "the sun is up, the sky is blue (it's beautiful). and so are you: 3.14!"
    )
    assert '"yes, of course"' in detokenise(words)
    assert tokenise(detokenise(words)) == words


def test_the_default_text_takes_itself_apart_into_the_same_words() -> None:
    data = read(vocab_size=1000, window=20)
    words = [data.vocabulary[number] for number in data.splits["val"].stream.tolist()]
    known = [word for word in words if word != UNKNOWN]
    assert tokenise(detokenise(known)) == known
    assert len(data.vocabulary) == len(set(data.vocabulary)) == 1000
    assert (data.splits["train"].stream == 0).float().mean() < 0.1


def test_a_vocabulary_in_a_file_is_read_back(tmp_path: Path) -> None:
    words = [UNKNOWN, "the", "été", "'", "日本"]
    write_vocabulary(tmp_path / "vocabulary.txt", words)
    assert read_vocabulary(tmp_path / "vocabulary.txt") == words


def test_words_are_numbered_by_frequency_and_ties_by_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b a b c a d e " * 10)
    data = read(tmp_path / "a.txt", vocab_size=5)
    assert data.vocabulary == [UNKNOWN, "a", "b", "c", "d"]
    assert data.splits["train"].stream[:7].tolist() == [2, 1, 2, 3, 1, 4, 0]


def test_words_of_the_later_parts_are_not_in_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two " * 40 + "secret " * 20)
    data = read(tmp_path / "a.txt", vocab_size=3)
    assert data.vocabulary == [UNKNOWN, "one", "two"]
    assert not data.splits["test"].stream.any()


def test_the_parts_are_the_whole_text_in_its_order(poem: Path) -> None:
    parts = read(poem).splits
    words = tokenise(poem.read_text())
    joined = torch.cat([parts[name].stream for name in ("train", "val", "test")])
    number = {word: place for place, word in enumerate(read(poem).vocabulary)}
    assert joined.tolist() == [number.get(word, 0) for word in words]
    assert len(parts["val"].stream) == len(parts["test"].stream) == len(words) // 10


def test_batches_have_the_stated_shape_and_numbers_below_the_vocabularys_size() -> None:
    data = read(vocab_size=1000, window=20)
    x, y = next(iter(data.train_dataloader()))
    assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
    assert list(x.shape) == [8, *data.input_shape]
    assert y.shape == (8,)
    assert max(split.stream.max() for split in data.splits.values()) < data.num_classes


def test_the_words_do_not_depend_on_the_seed_of_the_run(poem: Path) -> None:
    assert read(poem, seed=1).identity() == read(poem, seed=2).identity()


def test_a_folder_is_its_texts_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, words in {"b.md": "beta ", "a.txt": "alpha ", "sub/c.txt": "gamma ", "d.py": "delta "}.items():
        (tmp_path / name).write_text(words * 20)
    data = read(tmp_path, vocab_size=4, val_share=0.15, test_share=0.15)
    stream = torch.cat([data.splits[name].stream for name in ("train", "val", "test")])
    assert stream.unique_consecutive().tolist() == [
        data.vocabulary.index(w) for w in ("alpha", "beta", "gamma")
    ]
    assert "delta" not in data.vocabulary


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("every_position", [False, True])
def test_a_window_is_followed_by_its_next_words(stride: int, every_position: bool) -> None:
    windows = Windows(torch.arange(100, 150), 5, stride, every_position)
    x, y = windows.batch(torch.arange(len(windows)))
    assert x.dtype == y.dtype == torch.int64
    assert x[1].tolist() == list(range(100 + stride, 105 + stride))
    assert torch.equal(y, x + 1 if every_position else x[:, -1] + 1)
    assert x[-1, -1] + 1 > 149 - stride  # there is no room for another
    assert y.max() <= 149


def test_a_text_of_one_window_has_one(tmp_path: Path) -> None:
    assert [len(Windows(torch.zeros(n, dtype=torch.int64), 5)) for n in (0, 5, 6, 7)] == [0, 0, 1, 2]


def test_the_same_words_give_the_same_digest_and_others_another(poem: Path) -> None:
    assert read(poem).identity() == read(poem).identity()
    before = read(poem).identity()
    poem.write_text(poem.read_text() + "you")
    assert read(poem).identity()["digest"] != before["digest"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "text.txt: no such file or folder; leave data.path out"),
        (b"", "text.txt: no words in it"),
        (b"\n \n", "text.txt: no words in it"),
        (b"a word\nbad \xff\n", r"text.txt: byte 11 \(0xff\) is not UTF-8; save the file as UTF-8"),
        (b"one two three four " * 5, "the val part has 2 words, and a window with its next word needs 5"),
    ],
    ids=["missing", "empty", "blank", "not UTF-8", "short"],
)
def test_a_text_that_cannot_be_used_is_refused_in_one_line(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(DataError, match=said) as refusal:
        read(tmp_path / "text.txt", vocab_size=2)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*.txt or \*.md in this folder"):
        read(tmp_path)


def test_more_numbers_than_words_are_refused_with_how_many_there_are(poem: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data.vocab_size=99: .* 19 different words.* at most 20 would be right"
    ):
        read(poem, vocab_size=99)
    assert len(read(poem, vocab_size=20).vocabulary) == 20
