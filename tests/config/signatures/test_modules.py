import sys
from types import ModuleType

import pytest

from regente.config.signatures import TargetNotFound, read


@pytest.mark.parametrize(
    ("exports", "shown"),
    [("['_a']", ["_a"]), ("['_a'] + other()", ["_a", "b"]), ("['_a']\n__all__ += ['b']", ["_a", "b"])],
)
def test_a_star_brings_what_all_lists_and_where_it_is_computed_all_that_is_public(package, exports, shown):
    deep = f"__all__ = {exports}\ndef _a(x): ...\ndef b(x): ...\ndef _c(x): ..."
    name = package(__init__="from .deep import *", deep=deep)
    assert [list(read(f"{name}.{each}").parameters) for each in shown] == [["x"]] * len(shown)
    for each in {"_a", "b", "_c"} - {*shown}:
        with pytest.raises(TargetNotFound):
            read(f"{name}.{each}")


def test_namespace_packages_and_single_modules_are_found(tmp_path, monkeypatch):
    (tmp_path / "written_space" / "inner").mkdir(parents=True)
    (tmp_path / "written_space" / "inner" / "part.py").write_text(r"def it(x='\d'): ...")  # and no warning
    (tmp_path / "written_single.py").write_text("def it(y): ...")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(read("written_space.inner.part.it").parameters) == ["x"]
    assert list(read("written_single.it").parameters) == ["y"]


def test_a_file_that_changes_is_read_again(package, tmp_path):
    name = package(there="def it(x): ...")
    assert list(read(f"{name}.there.it").parameters) == ["x"]
    (tmp_path / name / "there.py").write_text("def it(x, longer): ...")
    assert list(read(f"{name}.there.it").parameters) == ["x", "longer"]


def test_a_misspelt_top_level_name_suggests_what_is_imported_or_installed_to_be_edited(monkeypatch):
    finder = ModuleType("__editable___some_finder")
    monkeypatch.setattr(finder, "MAPPING", {"worktop": "/w", "worktop.conf": "/c"}, raising=False)
    monkeypatch.setitem(sys.modules, finder.__name__, finder)
    monkeypatch.setattr(sys, "path", [])
    for target, closest in {"regentee.models.cnn.CNN": "regente", "worktopp.A": "worktop"}.items():
        with pytest.raises(TargetNotFound, match=f"did you mean {closest}"):
            read(target)
