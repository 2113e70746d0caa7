import textwrap

import pytest

from regente.config.signatures import NOT_LITERAL, read, refusals
from tests.config.signatures.conftest import REAL


def test_adam_refuses_in_its_own_words():
    adam = read("torch.optim.Adam")
    assert refusals(adam, {"lr": -1.0}) == [("lr", "0.0 <= lr", "Invalid learning rate: -1.0")]
    told = ("betas", "0.0 <= betas[1] < 1.0", "Invalid beta parameter at index 1: 1.5")
    assert refusals(adam, {"betas": [0.9, 1.5]}) == [told]
    assert refusals(adam, {"lr": object(), "foreach": True}) == []
    assert refusals(adam, {"lr": "fast"}) == []  # that is for the annotation to refuse
    told = ("eps", "0.0 <= eps", "Invalid epsilon value: -1.0")
    assert refusals(read("torch.optim.AdamW"), {"eps": -1.0}) == [told]


def test_real_settings_out_of_range_are_refused():
    cases = {
        "torch.optim.SGD": ({"momentum": -0.1}, "momentum"),
        "torch.optim.lr_scheduler.OneCycleLR": ({"pct_start": 1.5, "total_steps": 9}, "pct_start"),
        "pytorch_lightning.callbacks.EarlyStopping": ({"monitor": "val/loss", "mode": "mim"}, "mode"),
    }
    for target, (arguments, blamed) in cases.items():
        assert [name for name, _, _ in refusals(read(target), arguments)] == [blamed], target


def test_no_setting_is_refused_that_equals_its_default():
    for target in REAL:
        found = read(target)
        given = {p.name: p.default for p in found.parameters.values() if p.default not in (NOT_LITERAL, None)}
        assert refusals(found, given) == [], target


def test_what_is_filled_in_later_is_no_reason_to_refuse():
    cycle = read("torch.optim.lr_scheduler.OneCycleLR")
    assert refusals(cycle, {"max_lr": 0.1}) == []
    assert refusals(cycle, {"epochs": 3, "total_steps": object()}) == []
    assert [name for name, _, _ in refusals(cycle, {"epochs": 3})] == ["epochs"]


@pytest.mark.parametrize(
    ("body", "x", "rule", "message"),
    [
        ("if not 0 < x <= 1: raise ValueError", 2, "0 < x <= 1", ""),
        ("if x is not None:\n  if x < 1: raise ValueError('low')", 0, "x >= 1", "low"),
        ("if x is not None and y: raise ValueError('both')", 1, "x is None or not y", "both"),
        ("if x not in ('a', 'b'): raise ValueError(f'no {x!r}')", "c", "x in ('a', 'b')", "no 'c'"),
        ("if x not in KINDS: raise KeyError('no {}'.format(x))", "c", "x in ('a', 'b')", "no c"),
        ("if len(x) != 2: raise ValueError('two of %s' % y)", [1], "len(x) == 2", "two of 5"),
        ("if x % y: raise ValueError(f'{x} of {other(y)}')", 7, "not x % y", "7 of {other(y)}"),
        ("assert x > 0, f'not {x}'", 0, "x > 0", "not 0"),
        ("if x is None: x = 3\nif x < 0: raise ValueError", -1, "x >= 0", ""),
        ("if y == 6: return\nif not isinstance(x, int): raise TypeError", 0.5, "isinstance(x, int)", ""),
        ("if x < 1: raise ValueError('low')", "a", "", ""),
        ("x = abs(x)\nif x < 0: raise ValueError", -1, "", ""),
        ("if y:\n  x = 3\n  if x < 0: raise ValueError", -1, "", ""),
        ("if y == 5: return\nif x < 0: raise ValueError", -1, "", ""),
        ("if y:\n  if other(): return\nif x < 0: raise ValueError", -1, "", ""),
        ("KINDS = other()\nif x not in KINDS: raise KeyError", "c", "", ""),
        ("raise NotImplementedError", 3, "", ""),
    ],
)
def test_a_rule_in_the_body_is_judged_or_left_alone(code, body, x, rule, message):
    found = code("KINDS = ('a', 'b')\ndef it(x=None, y=5):\n" + textwrap.indent(body, "    "))
    assert refusals(found, {"x": x}) == ([("x", rule, message)] if rule else [])


def test_an_attribute_is_the_parameter_that_it_was_given(code):
    found = code(
        """
        class it:
            modes = {"min": min, "max": max}
            def __init__(self, mode="min", size=3):
                self.mode = mode
                self.size = abs(size)
                if self.mode not in self.modes:
                    raise ValueError(f"{self.mode} is none of {', '.join(self.modes)}")
                if self.size > 3:
                    raise ValueError
        """
    )
    told = ("mode", "mode in ['min', 'max']", "mim is none of min, max")
    assert refusals(found, {"mode": "mim", "size": 4}) == [told]


def test_the_base_judges_what_it_is_handed_in_the_words_of_the_class(code):
    found = code(
        """
        class A:
            def __init__(self, size, own=1):
                assert size >= 1, f"no size: {size}"
                assert own < 3
        class it(A):
            def __init__(self, width, own=5, **kwargs):
                super().__init__(width, **kwargs)
        """
    )
    assert refusals(found, {"width": 0}) == [("width", "width >= 1", "no size: 0")]
    assert refusals(found, {"width": 1, "own": 5}) == []
