"""What torchvision's data sets do with the files that are there, damaged or missing."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.core.images import Images
from regente.errors import DataError
from tests.published import publish_cifar, publish_mnist, write_idx

pytestmark = pytest.mark.slow  # not in `make quick`

OPTIONS = ["mnist", "fashion_mnist", "cifar10", "cifar100"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of one's own, and no way to the internet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nothing listens there
    return tmp_path / "cache" / "regente"


def make(option: str, root: Path | None, *overrides: str) -> Images:
    words = [f"data={option}", "data.num_val=100", *([f"data.root={root}"] if root else []), *overrides]
    data = instantiate(resolve(compose("digits_cnn", words).node)["data"], _convert_="all")
    assert isinstance(data, Images)
    return data


def read(data: Images) -> Images:
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("option", OPTIONS)
def test_a_folder_that_is_not_there_is_named_with_what_it_should_hold(option: str) -> None:
    with pytest.raises(
        DataError, match=r"data.root=/nope: no such directory; name the folder that holds \S+, or leave"
    ):
        make(option, Path("/nope")).prepare_data()


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("mnist", r"train-images-idx3-ubyte.gz, .*t10k-labels-idx1-ubyte.gz"),
        ("fashion_mnist", r"train-images-idx3-ubyte.gz, .*t10k-labels-idx1-ubyte.gz"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_offline_one_line_says_which_files_to_put_where(
    option: str, names: str, declared: bool, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"put {names} there, or name the folder .* data.root=PATH") as error:
        make(option, tmp_path if declared else None).prepare_data()
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "data.lock"]


@pytest.mark.parametrize("option", ["mnist", "fashion_mnist"])
def test_a_gz_file_that_was_cut_short_is_named(option: str, tmp_path: Path) -> None:
    raw = publish_mnist(tmp_path, "MNIST" if option == "mnist" else "FashionMNIST")
    images = raw / "train-images-idx3-ubyte.gz"
    os.truncate(images, images.stat().st_size // 2)
    with pytest.raises(DataError, match=rf"{images} is damaged or incomplete .*delete it"):
        make(option, tmp_path).prepare_data()


@pytest.mark.parametrize("option", ["cifar10", "cifar100"])
def test_an_archive_that_was_cut_short_is_named_and_not_opened(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = publish_cifar(tmp_path, option.upper(), monkeypatch)
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(DataError, match=rf"{archive} is damaged or incomplete \(its MD5 is \w+ instead"):
        make(option, tmp_path).prepare_data()


class Trap:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


def test_a_batch_of_another_checksum_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    publish_cifar(tmp_path, "CIFAR10", monkeypatch)
    read(make("cifar10", tmp_path))
    (batch,) = (tmp_path / "cache").rglob("data_batch_1")
    batch.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="damaged"):
        read(make("cifar10", tmp_path))
    assert not (tmp_path / "sprung").exists()


def test_unpacked_files_that_are_not_images_are_called_damaged(tmp_path: Path) -> None:
    raw = publish_mnist(tmp_path, "MNIST")
    write_idx(raw / "train-images-idx3-ubyte.gz", np.zeros((3, 28), dtype=np.uint8))
    with pytest.raises(DataError, match="damaged"):
        read(make("mnist", tmp_path))


@pytest.mark.parametrize("option", ["mnist", "cifar10"])
def test_a_folder_that_may_only_be_read_is_left_as_it_is(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    root = tmp_path / "shared"
    publish_mnist(root, "MNIST")
    publish_cifar(root, "CIFAR10", monkeypatch)
    before = sorted(root.rglob("*"))
    for folder in (root, root / "MNIST/raw"):
        folder.chmod(0o555)
    try:
        assert read(make(option, root)).splits["test"]
    finally:
        for folder in (root, root / "MNIST/raw"):
            folder.chmod(0o755)
    assert sorted(root.rglob("*")) == before
    assert list((cache / "unpacked").iterdir())


def test_two_folders_are_not_taken_for_each_other(tmp_path: Path) -> None:
    raw = publish_mnist(tmp_path / "a", "MNIST")
    other = publish_mnist(tmp_path / "b", "MNIST")
    write_idx(other / "t10k-labels-idx1-ubyte.gz", np.full(100, 7, dtype=np.uint8))
    assert raw != other
    a, b = read(make("mnist", tmp_path / "a")), read(make("mnist", tmp_path / "b"))
    assert a.splits["test"].y.unique().numel() > 1
    assert b.splits["test"].y.unique().tolist() == [7]


def test_a_validation_split_as_large_as_the_training_file_is_refused(tmp_path: Path) -> None:
    publish_mnist(tmp_path, "MNIST")
    with pytest.raises(DataError, match=r"data.num_val=600: nothing left to train on"):
        read(make("mnist", tmp_path, "data.num_val=600"))


@pytest.mark.parametrize("option", OPTIONS)
def test_only_https_is_asked(option: str) -> None:
    urls = [url for file in make(option, None).published() for url in file.urls]  # type: ignore[attr-defined]
    assert urls
    assert all(url.startswith("https:") for url in urls)
