"""What a search draws from, in Hydra's grammar."""

import pytest

from regente.errors import ConfigError
from regente.sweeps.distributions import Choice, Interval, space


@pytest.mark.parametrize(
    ("word", "drawn"),
    [
        ("a=interval(1,5)", Interval(1, 5)),
        ("a=int(interval(1,5))", Interval(1, 5, whole=True)),
        ("a=tag(log,interval(1e-4,1e-1))", Interval(1e-4, 1e-1, log=True)),
        ("a=tag(log,int(interval(1,64)))", Interval(1, 64, whole=True, log=True)),
        ("a=range(1,6,2)", Interval(1, 5, whole=True, step=2)),
        ("a=range(0.5,2,0.5)", Interval(0.5, 1.5, step=0.5)),
        ("a=choice(x,y)", Choice(("x", "y"), ("x", "y"))),
        ("a=1,2.5,true", Choice((1, 2.5, True), ("1", "2.5", "True"))),
        ("a=[1,2],[3,4]", Choice(("[1,2]", "[3,4]"), ("[1,2]", "[3,4]"))),
    ],
)
def test_each_form_of_the_grammar_is_a_distribution(word: str, drawn: object) -> None:
    assert space([word], {}).drawn == {"a": drawn}


def test_a_range_is_hydras_and_stops_before_its_end() -> None:
    assert space(["a=range(1,5)"], {}).drawn["a"].values == [1, 2, 3, 4]


def test_the_command_line_has_the_last_word_over_the_params_of_a_config() -> None:
    found = space(
        ["b=3", "model=cnn,mlp"], {"optimizer": {"lr": "interval(0, 1)"}, "b": "choice(1,2)", "c": 4}
    )
    assert list(found.drawn) == ["optimizer.lr", "model"]
    assert found.fixed == ["c=4", "b=3"]


def test_a_drawn_value_becomes_the_override_that_was_written() -> None:
    found = space(["a=1,2.5,'x y'", "n=int(interval(1,9))", "s=range(0.1,1,0.1)"], {})
    assert found.overrides({"a": "'x y'", "n": 3, "s": 0.1 + 0.2}) == ["a='x y'", "n=3", "s=0.3"]


def test_extremes_hold_each_choice_and_both_ends_of_each_interval() -> None:
    found = space(["seed=7", "lr=interval(0.1,0.5)", "model=a,b,c"], {})
    assert list(found.extremes()) == [
        ["seed=7", "lr=0.1", "model=a"],
        ["seed=7", "lr=0.5", "model=b"],
        ["seed=7", "lr=0.1", "model=c"],
    ]


def test_everything_that_cannot_be_drawn_from_is_said_at_once() -> None:
    words = ["a=interval(5,1)", "b=tag(log,interval(0,1))", "c=intervl(1,2)", "d=range(5,1)", "e=glob(*)"]
    with pytest.raises(ConfigError) as raised:
        space(words, {})
    lines = str(raised.value).splitlines()
    assert [line.partition("=")[0] for line in lines] == ["a", "b", "c", "d", "e"]
    assert "5 is above 1" in lines[0]
    assert "above 0, not 0" in lines[1]
    assert "Unknown function 'intervl'" in lines[2] and "interval(a, b)" in lines[2]
