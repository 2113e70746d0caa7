from regente.config.signatures import read


def test_without_an_init_of_its_own_a_class_takes_its_bases(code):
    text = "class A:\n    def __init__(self, a, b=1): ...\nclass B(A): ...\nclass it(B): ..."
    assert list(code(text).parameters) == ["a", "b"]
    empty = code("from torch import nn\nclass it(nn.Module): ...")
    assert (empty.parameters, empty.open, empty.derives_from("torch.nn.Module")) == ({}, False, True)


def test_an_unreadable_base_leaves_the_arguments_open(code):
    assert code("from elsewhere_missing import it\nclass it(it): ...").open
    found = code("from _socket import socket\nclass it(socket): ...")
    assert (found.kind, found.open, found.derives_from("torch.nn.Module")) == ("class", True, None)


def test_keywords_passed_on_to_the_base_are_its_parameters(code):
    text = """
        class A:
            def __init__(self, a, b, c=3): ...
        class it(A):
            def __init__(self, own, **kwargs): super().__init__(1, **kwargs)
    """
    found = code(text)
    assert {p.name: p.required for p in found.parameters.values()} == {"own": True, "b": True, "c": False}
    assert not found.open
    assert code(text.replace("super()", "kwargs.pop('z'), super()")).open
    assert code("class it:\n    def __init__(self, **kwargs): ...").open
    assert {p.name: p.owner.rpartition(".")[2] for p in found.parameters.values()} == {
        "own": "it",
        "b": "A",
        "c": "A",
    }


def test_a_class_that_makes_its_objects_in_new_takes_what_it_likes(code):
    found = code("class it:\n    def __new__(cls, x): ...")
    assert found.open and not found.parameters


def test_our_own_data_takes_what_its_base_takes():
    digits = read("regente.data.digits.Digits")
    assert not digits.open
    assert {"split_seed", "batch_size", "num_classes"} <= digits.parameters.keys()
    assert not digits.parameters["batch_size"].annotation.allows(0)


def test_dataclasses_take_their_fields(code):
    found = code(
        """
        from dataclasses import dataclass, field
        @dataclass
        class A:
            a: int
            b: list[int] = field(default_factory=list)
        @dataclass(frozen=True)
        class it(A):
            shared: ClassVar[int] = 3
            hidden: int = field(init=False, default=3)
            c: float = 1.5
        """
    )
    assert {p.name: p.required for p in found.parameters.values()} == {"a": True, "b": False, "c": False}
    assert found.parameters["c"].default == 1.5
