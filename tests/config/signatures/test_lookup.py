import pytest

from regente.config.signatures import TargetNotFound, read


def test_a_class_is_found_through_every_kind_of_import(package):
    name = package(
        __init__="""
            from .deep import A, A as B
            from PKG.deep import *
            from . import deep as renamed
            try:
                from missing_package import C
            except ImportError:
                from .deep import A as C
            if TYPE_CHECKING:
                from .deep import A as D
            E = renamed.A
            if sys.version_info < (3, 0):
                from nowhere import E
        """,
        deep="class A:\n    def __init__(self, x: int): ...\nclass Star(A): ...\nclass _Hidden: ...",
    )
    for path in ("A", "B", "C", "D", "E", "Star", "renamed.A", "deep.A"):
        assert list(read(f"{name}.{path}").parameters) == ["x"], path
    with pytest.raises(TargetNotFound):
        read(f"{name}._Hidden")


def test_a_name_of_a_module_means_what_the_package_binds_to_it(package):
    name = package(__init__="from .cnn import cnn", cnn="def cnn(x): ...\ndef other(y): ...")
    assert list(read(f"{name}.cnn").parameters) == ["x"]
    assert list(read(f"{name}.cnn.other").parameters) == ["y"]


def test_a_method_of_a_class_is_a_target(package):
    build = "class Base:\n    @classmethod\n    def build(cls, x): ..."
    name = package(there=build + "\nclass it(Base):\n    @staticmethod\n    def make(y): ...")
    assert list(read(f"{name}.there.it.build").parameters) == ["x"]
    assert list(read(f"{name}.there.it.make").parameters) == ["y"]
    with pytest.raises(TargetNotFound, match=r"did you mean build\?"):
        read(f"{name}.there.it.buidl")


def test_the_ancestors_are_known_by_any_of_their_names():
    assert read("torch.optim.AdamW").derives_from("torch.optim.Optimizer")
    assert read("torch.optim.AdamW").derives_from("torch.optim.adam.Adam")
    assert read("torch.nn.Linear").derives_from("torch.optim.Optimizer") is False


def test_a_missing_part_is_named_with_its_neighbours(package):
    name = package(cnn="class CNN: ...", lstm="class LSTM: ...")
    cases = {
        f"{name}.cnnn.CNN": (f"{name}.cnnn", "cnn"),
        f"{name}.cnn": (f"{name}.cnn", "CNN"),
        "torch.optm.Adam": ("torch.optm", "optim"),
        "torch.optim.AdmW": ("AdmW", "AdamW"),
        "torchvision.models.resnt18": ("resnt18", "resnet18"),
    }
    for target, (part, closest) in cases.items():
        with pytest.raises(TargetNotFound, match=closest) as caught:
            read(target)
        assert (caught.value.part, caught.value.closest[:1]) == (part, [closest])


@pytest.mark.parametrize("target", ["", "a..b", ".x", "no_such_module_at_all", "torch.", "torch.optim..Adam"])
def test_what_is_no_path_is_not_found(target):
    with pytest.raises(TargetNotFound):
        read(target)
