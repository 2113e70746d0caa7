import pytest

from regente.config.signatures import Signature, read


def allows(signature: Signature, name: str, *values: object) -> list[bool]:
    return [signature.parameters[name].annotation.allows(value) for value in values]


@pytest.mark.parametrize(
    ("written", "text", "good", "bad"),
    [
        ("int", "a whole number", [1, -1], [True, 1.0, "1"]),
        ("float", "a number", [1, 1.5, float("inf")], [True, "1e-3"]),
        ("Union[int, str, None]", "a whole number or a text or null", [1, "a", None], [1.5]),
        ("'Optional[NUMBERS]'", "one of 1, 2, x or null", [1, 2, "x", None], [3, "1"]),
        ("str", "a text", ["a", 2024], [True, 1.5]),
        ("list[int]", "a list of whole numbers", [[], [1]], [1, ["a"], [True], "ab"]),
        ("Sequence[float]", "a list of numbers", [[1.5, 2]], ["ab", 3, ["a"]]),
        (
            "Iterable[str] | tuple[int, ...]",
            "a list of texts or a list of whole numbers",
            [["a"], "ab", [1]],
            [3],
        ),
        ("tuple[float, float]", "a list of (a number, a number)", [[0.9, 1]], [[0.9], 0.9, ["a", 1]]),
        ("dict[str, int]", "a mapping to whole numbers", [{"a": 1}, {}], [{"a": "b"}, {1.5: 1}, [1]]),
        ("os.PathLike | Any", "a path or anything", ["a/b", 1, None, [], True], []),
        ("Callable[[int], int]", "a Callable object", [1, "a", True], []),
        ("torch.Tensor | float", "a tensor or a number", [1.5, object()], ["a"]),
        ("Limited", "a whole number >= 1 and < 9 or null", [1, 8, None], [0, 9]),
        ("Annotated[float, Interval(gt=0, le=1)]", "a number > 0 and <= 1", [1, 0.1], [0, 1.1, float("nan")]),
        ("Annotated[list, Len(1, 2)]", "a list of length >= 1 and <= 2", [[1]], [[], [1] * 3]),
        ("Tree", "a whole number or a list of Tree objects", [1, [1, [2]]], ["a"]),
    ],
)
def test_an_annotation_allows_values_and_names_them(code, written, text, good, bad):
    found = code(
        f"""
        from __future__ import annotations
        import os, torch
        from typing import Any, Annotated, Callable, Iterable, Literal, Optional, Sequence, Union
        from annotated_types import Ge, Interval, Len, Lt
        WHOLE = Literal[1, 2]
        NUMBERS = Union[WHOLE, Literal["x"]]
        Limited = Annotated[int | None, Ge(1), Lt(9)]
        Tree = Union[int, list["Tree"]]
        def it(x: {written}): ...
        """
    )
    assert str(found.parameters["x"].annotation) == text
    assert allows(found, "x", *good) == [True] * len(good)
    assert allows(found, "x", *bad) == [False] * len(bad)
    assert allows(found, "x", object(), {"_target_": "a.B"}) == [True, True]


def test_null_and_a_list_pass_where_a_class_of_ones_own_is_annotated_with_one_value(code):
    found = code("def it(gpus: int, name: str, sizes: list[int], share: tuple[float, float]): ...")
    for name, good, bad in (
        ("gpus", [None, [2], 1], ["abc", 1.5, {"a": 1}]),
        ("name", [None, ["a"]], [1.5]),
        ("sizes", [None, [1]], [3, ["a"]]),
        ("share", [None], [3]),
    ):
        assert allows(found, name, *good) == [True] * len(good), name
        assert allows(found, name, *bad) == [False] * len(bad), name
    assert not read("torch.optim.SGD").parameters["nesterov"].annotation.allows(None)


def test_the_precisions_of_the_trainer_are_read_through_four_modules():
    trainer = read("pytorch_lightning.Trainer")
    assert all(allows(trainer, "precision", 16, "16", "16-mixed", "bf16-mixed", 32, None))
    assert not any(allows(trainer, "precision", "fp17", 17, 16.0, True))
    assert "bf16-mixed" in str(trainer.parameters["precision"].annotation)
    assert allows(trainer, "devices", "auto", [0, 1], 1.5, ["a"]) == [True, True, False, False]


def test_an_annotation_that_refuses_its_own_default_is_ignored(code):
    found = code("def it(x: int = None, y: int = 'auto'): ...")
    assert allows(found, "x", 1, None, "a") == [True, True, False]
    assert allows(found, "y", 1, "auto", 2.5) == [True, True, True]
