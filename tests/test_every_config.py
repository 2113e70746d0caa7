"""Each file under conf/ and experiments/ composes, passes `check` and says in its first line what it is."""

import pytest

from regente.catalog import experiment_files, groups, header_comment
from regente.check import check
from regente.compose import compose, resolve
from regente.errors import ConfigError

EXPERIMENTS = experiment_files()
OPTIONS = [(group, option) for group, options in groups().items() for option in options]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_composes_and_passes_check(experiment: str) -> None:
    assert check(resolve(compose(experiment, []).node)) == []


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_into_an_experiment_and_passes_check(group: str, option: str) -> None:
    answers = (problems(experiment, f"{group}={option}") for experiment in ["digits_cnn", *EXPERIMENTS])
    assert "" in answers  # the default experiment takes nearly all of them, and then no other is asked


def problems(experiment: str, *overrides: str) -> str:
    """What is wrong with an experiment; a model of words has no place in one of images."""
    try:
        return "\n".join(map(str, check(resolve(compose(experiment, overrides).node))))
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("file", [*EXPERIMENTS.values(), *(groups()[g][o] for g, o in OPTIONS)], ids=str)
def test_a_file_says_in_its_first_line_what_it_is(file: object) -> None:
    assert len(header_comment(file)) > 10  # type: ignore[arg-type]


def test_there_is_something_to_check() -> None:
    assert len(EXPERIMENTS) >= 3
    assert len(OPTIONS) >= 18
