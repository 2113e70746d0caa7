"""What is special to a folder of images: layouts, the cache, notes, and faults that are found before training."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from regente.data.image_folder import ImageFolder
from regente.errors import ConfigError, DataError
from tests.conftest import Ended
from tests.data.conftest import Photos


def make(root: Path, num_classes: int = 2, resolution: int = 8, **settings: Any) -> ImageFolder:
    """The data module, not yet read."""
    facts = {
        "input_shape": [3, resolution, resolution],
        "class_names": None,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    given = {"resolution": resolution, "num_classes": num_classes, "batch_size": 4, **facts, **settings}
    return ImageFolder(root=str(root), **given)


def read(root: Path, *arguments: Any, **settings: Any) -> ImageFolder:
    data = make(root, *arguments, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def images(data: ImageFolder, split: str) -> set[bytes]:
    return {bytes(image.numpy()) for image in data.splits[split].x}


def sizes(data: ImageFolder) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


@pytest.fixture
def flat(photos: Photos) -> Path:
    """Two classes of twenty images each, no splits."""
    photos("cat", 20)
    return photos("dog", 20)


@pytest.fixture
def whole(photos: Photos) -> Path:
    """Two classes, three splits."""
    for split, number in (("train", 6), ("validation", 3), ("test", 2)):
        for name in ("cat", "dog"):
            photos(f"{split}/{name}", number)
    return photos("train/cat", 0)


def test_splits_and_classes_are_those_of_the_folders(whole: Path) -> None:
    data = read(whole)
    assert sizes(data) == {"train": 12, "val": 6, "test": 4}
    assert data.class_names == ["cat", "dog"]
    assert data.splits["val"].y.tolist() == [0] * 3 + [1] * 3
    assert not data.notes[1:]  # the first says what was decoded


def test_class_names_give_the_order_of_the_labels(whole: Path) -> None:
    data = read(whole, class_names=["dog", "cat"])
    assert data.class_names == ["dog", "cat"]
    assert data.splits["test"].y.tolist() == [1, 1, 0, 0]
    with pytest.raises(ConfigError, match=r"data.class_names: not the directories in .*\(cow, dog\)"):
        read(whole, class_names=["cat", "cow"])


def test_splits_that_are_missing_are_carved_class_by_class(flat: Path) -> None:
    data = read(flat, val_share=0.2, test_share=0.1)
    assert sizes(data) == {"train": 28, "val": 8, "test": 4}
    for split, number in (("train", 14), ("val", 4), ("test", 2)):
        assert data.splits[split].y.bincount().tolist() == [number, number]
    assert any("8 for val and 4 for test carved out of train" in note for note in data.notes)


def test_val_alone_is_carved_where_only_val_is_missing(whole: Path) -> None:
    shutil.rmtree(whole / "validation")
    data = read(whole)
    assert sizes(data) == {"train": 10, "val": 2, "test": 4}


def test_a_carved_split_depends_on_split_seed_and_content_not_on_names(flat: Path, tmp_path: Path) -> None:
    before = read(flat)
    assert images(before, "test") != images(read(flat, split_seed=1), "test")
    (flat / "cat/0.png").rename(flat / "cat/zzz.png")
    after = read(flat.rename(tmp_path / "elsewhere"))
    assert all(images(before, name) == images(after, name) for name in ("train", "val", "test"))


def test_copies_of_an_image_are_carved_into_the_same_split(flat: Path) -> None:
    for file in list(flat.glob("*/*.png")):
        shutil.copy(file, file.with_name(f"copy{file.name}"))
    data = read(flat)
    assert not images(data, "train") & images(data, "val")
    assert not any("two splits" in note for note in data.notes)


def test_a_second_job_decodes_nothing_and_reads_the_same(whole: Path, tmp_path: Path) -> None:
    first, second = read(whole), read(whole)
    assert "decoded" in first.notes[0]
    assert second.notes == []
    assert first.identity() == second.identity()
    assert all(torch.equal(first.splits[name].x, second.splits[name].x) for name in first.splits)
    assert len(list((tmp_path / "cache").rglob("pixels"))) == 1


def test_a_changed_file_another_side_or_one_file_more_is_decoded_anew(whole: Path, photos: Photos) -> None:
    digests = {read(whole).identity()["digest"], read(whole, resolution=6).identity()["digest"]}
    os.utime(whole / "train/cat/0.png", (0, 0))
    assert "decoded" in (same := read(whole)).notes[0]
    assert same.identity()["digest"] in digests  # the same images
    photos("train/cat", 1)
    assert read(whole).identity()["digest"] not in digests


def test_a_cache_that_is_damaged_is_said_to_be(whole: Path, tmp_path: Path) -> None:
    read(whole)
    (folder,) = (tmp_path / "cache/regente/images").glob("*/")
    assert (tmp_path / "cache/regente").stat().st_mode & 0o777 == 0o700
    draw = random.Random(0)
    for name in ("pixels", "pixels", "digests", "bad.json", "checksums.json"):
        content = (file := folder / name).read_bytes()
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        with pytest.raises(DataError, match=f"damaged, it has changed; regente cache clear {folder.name}"):
            read(whole)
        file.write_bytes(content)
    assert read(whole).notes == []
    (folder / "pixels").write_bytes((folder / "pixels").read_bytes()[:-1])
    with pytest.raises(DataError, match="pixels: damaged"):
        read(whole)
    (folder / "checksums.json").unlink()  # as an older version left it
    assert "decoded" in read(whole).notes[0]


def test_a_cache_that_cannot_be_written_is_named(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, no folder")
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to a folder with room"):
        read(whole)


def test_what_is_hidden_is_passed_over_and_what_is_no_image_is_counted(whole: Path) -> None:
    for folder in (".ipynb_checkpoints", "train/.ipynb_checkpoints", "train/cat/.thumbs", "train/__MACOSX"):
        shutil.copytree(whole / "test/cat", whole / folder)
    (whole / "train/.DS_Store").touch()
    (whole / "train/cat/labels.txt").touch()
    (whole / "test/readme.md").touch()
    data = read(whole)
    assert sizes(data)["train"] == 12
    assert data.notes[1:] == [
        "2 files ignored, not images in a class directory: test/readme.md, train/cat/labels.txt"
    ]


def test_links_and_deeper_folders_are_followed_and_a_loop_ends(whole: Path, tmp_path: Path) -> None:
    (whole / "train/cat").rename(tmp_path / "cats")
    (whole / "train/cat").symlink_to(tmp_path / "cats")
    (tmp_path / "cats/more").mkdir()
    shutil.copy(tmp_path / "cats/0.png", tmp_path / "cats/more/other.PNG")
    (tmp_path / "cats/more/loop").symlink_to(tmp_path / "cats")
    assert sizes(read(whole))["train"] == 13


def test_images_that_are_in_two_splits_are_named(whole: Path) -> None:
    shutil.copy(whole / "train/cat/0.png", whole / "test/cat/other.png")
    data = read(whole)
    assert data.notes[1:] == ["1 image in two splits, byte for byte: test/cat/other.png = train/cat/0.png"]


def spoil(root: Path) -> None:
    """One file that is no image, one that ends too early, one that is empty."""
    (root / "train/cat/0.png").write_text("no image")
    content = (root / "train/dog/1.png").read_bytes()
    (root / "train/dog/1.png").write_bytes(content[: len(content) // 2])
    (root / "test/dog/1.png").write_bytes(b"")


def test_images_that_cannot_be_read_are_named_before_training(whole: Path) -> None:
    spoil(whole)
    with pytest.raises(DataError) as caught:
        read(whole)
    said = str(caught.value)
    assert "\n" not in said
    assert "3 of 22 images cannot be read: test/dog/1.png (empty), train/cat/0.png (not an image)" in said
    assert "train/dog/1.png (truncated)" in said
    assert said.endswith("data.on_bad=skip")


def test_images_that_cannot_be_read_are_left_out_on_demand_and_not_decoded_again(whole: Path) -> None:
    spoil(whole)
    with pytest.raises(DataError):
        read(whole)
    data = read(whole, on_bad="skip")
    assert sizes(data) == {"train": 10, "val": 6, "test": 3}
    assert [note.partition(":")[0] for note in data.notes] == ["3 images left out that cannot be read"]


def test_of_many_bad_images_five_are_named(whole: Path) -> None:
    for file in (whole / "train").glob("*/*.png"):
        file.write_text("no image")
    with pytest.raises(DataError, match=r"12 of 22 .*train/cat/4.png \(not an image\) and 7 more; "):
        read(whole)
    with pytest.raises(DataError, match="no image of cat in train can be read"):
        read(whole, on_bad="skip")


def _take_out(*folders: str) -> Callable[[Path], None]:
    return lambda root: [shutil.rmtree(root / folder) for folder in folders].clear()


def _empty(*folders: str) -> Callable[[Path], None]:
    return lambda root: [
        file.unlink() for folder in folders for file in (root / folder).rglob("*.png")
    ].clear()


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "B01 no such folder": (_take_out(""), r"data.root=.*photos: no such directory; name the one that holds"),
    "B02 empty folder": (_take_out("train", "validation", "test"), r"photos: no class directories; put the images"),
    "B02 empty train": (_take_out("train/cat", "train/dog"), r"photos/train: no class directories"),
    "no train": (_take_out("train"), r"photos: test, validation, but no train; name its folder train"),
    "B06 fewer classes in val": (_take_out("validation/cat"), r"validation: lacks the class cat; add the folder cat to val"),
    "B06 more classes in val": (lambda root: (root / "test/cow").mkdir(), r"test: has the class cow, which train lacks"),
    "B11 no images at all": (_empty("train"), r"train: no images in any of 2 class directories; images end in .jpg"),
    "empty class": (_empty("train/dog"), r"train/dog: no images; add some, or remove the directory"),
    "empty val": (_empty("validation"), r"the val split is empty"),
    "one class": (_take_out("train/cat"), r"train: a single class directory, dog; at least two are needed"),
    "val twice": (lambda root: (root / "val").mkdir(), r"both val and validation; keep one of them"),
    "one folder too high": (
        lambda root: [shutil.move(root / name, root / "set" / name) for name in ("train", "test")].clear(),
        r"did you mean data.root=.*photos/set\?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_folder_is_named_with_its_remedy(case: str, whole: Path) -> None:
    spoil_it, said = FAULTS[case]
    spoil_it(whole)
    with pytest.raises(DataError, match=said):
        read(whole)


def test_an_empty_class_directory_in_test_is_taken_as_meant(whole: Path) -> None:
    _empty("test/dog")(whole)
    assert sizes(read(whole))["test"] == 2


def test_a_class_with_too_few_images_to_carve_is_named(photos: Photos, flat: Path) -> None:
    photos("cow", 2)
    with pytest.raises(
        DataError, match="'cow' has too few different samples to carve val and test out of; at least 3 are"
    ):
        read(flat, 3)


def test_b08_a_wrong_number_of_classes_is_refused_with_the_right_one(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.num_classes=3: .* data.num_classes=2 would be right"):
        read(whole, 3)


def test_shares_that_leave_nothing_to_train_on_are_refused(flat: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.val_share, data.test_share: 1.1 together"):
        make(flat, val_share=0.6, test_share=0.5)


def test_a_folder_is_all_that_the_experiment_needs(
    regente: Callable[..., Ended], photos: Photos, project: Path
) -> None:
    photos("train/cat", 8, "jpg")
    photos("train/dog", 8, "jpg")
    words = ["folder_cnn", "data.root=photos", "data.resolution=24", "trainer.max_epochs=1", "tracking=none"]
    ended = regente("train", *words)
    assert ended.code == 0, ended.err
    assert "note: no val and test in the data: 2 for val and 2 for test carved out of train" in ended.out
    (file,) = (project / "runs").rglob("config.yaml")
    assert yaml.safe_load(file.read_text())["data"]["num_classes"] == 2  # frozen as it was found


def test_the_folder_is_looked_for_before_anything_heavy_starts(
    regente: Callable[..., Ended], photos: Photos
) -> None:
    ended = regente("check", "folder_cnn")
    assert (ended.code, ended.lines) == (
        2,
        ["data.root: has no value; name the folder of images: data.root=FOLDER"],
    )
    ended = regente("check", "folder_cnn", "data.root=nowhere")
    assert ended.code == 4
    assert ended.lines[0].startswith("data.root=nowhere: no such directory")
    photos("cat", 1)
    photos("dog", 1)
    assert regente("check", "folder_cnn", "data.root=photos").code == 0
