"""The words of a command line: which experiment, which overrides."""

from collections.abc import Sequence

from regente.config.discovery import DEFAULT_EXPERIMENT, experiment_files, groups, suggest
from regente.errors import ConfigError, Problem


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The experiment, if the first word names one, and the overrides.

    Raises:
        ConfigError: for words that are neither.
    """
    for word in words:
        if word.startswith("-"):
            raise ConfigError([Problem(word, _no_such_option(word.lstrip("-")))])
    for place, word in enumerate(words[1:], 1):
        if word.startswith("="):
            given = words[place - 1 : place + 2] if word == "=" else words[place - 1 : place + 1]
            what = f"not a setting; without blanks around the =: {''.join(given)}"
            raise ConfigError([Problem(" ".join(given), what)])
    named = bool(words) and _is_name(words[0])
    for word in filter(_is_name, words[named:]):
        if word in experiment_files():
            what = f"a second experiment; one at a time: {words[0] if named else word} first, then settings"
            raise ConfigError([Problem(word, what)])
    if named and words[0] not in experiment_files():
        raise ConfigError([_no_experiment(words[0])])
    return (words[0], list(words[1:])) if named else (DEFAULT_EXPERIMENT, list(words))


def _is_name(word: str) -> bool:
    return "=" not in word and not word.startswith(("+", "~"))


def _no_experiment(word: str) -> Problem:
    if "/" in word:
        what = "no job directory (a folder with job.json); regente train NAME takes an experiment by its name"
        return Problem(word, what)
    if "." in word or word in groups():
        return Problem(word, f"has no value; give it one: {word}=...")
    return Problem(f"experiment {word}".rstrip(), f"no such file; {suggest(word, list(experiment_files()))}")


def _no_such_option(bare: str) -> str:
    if "." not in bare and "=" not in bare:
        return "no such option; see regente train --help"
    return f"no such option; settings have no dashes: {bare if '=' in bare else bare + '=VALUE'}"
