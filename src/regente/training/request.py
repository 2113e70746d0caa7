"""From the words of a command line to a checked config, and to a job."""

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regente.config.check import check
from regente.config.compose import Composed, compose
from regente.config.discovery import DEFAULT_EXPERIMENT, experiment_files, groups, suggest
from regente.config.environment import VARIABLE, env_references, externalize
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.errors import ConfigError, Problem
from regente.jobs.job import Job, freeze
from regente.training.complete import complete


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


def checked(
    experiment: str, overrides: Sequence[str], parts: Collection[str] | None = None
) -> tuple[Composed, dict[str, Any]]:
    """The composed config, and the same resolved; all problems of either as one ConfigError."""
    composed = compose(experiment, overrides)
    complete(composed.node)
    config = resolve(composed.node)
    if problems := check(config, parts):
        raise ConfigError(problems)
    return composed, config


def freeze_job(composed: Composed, folder: Path, name: str | None = None, swept: Collection[str] = ()) -> Job:
    """A job directory for a composed config; secrets written into the config go to the environment instead."""
    config, secrets = externalize(composed.yaml())
    os.environ.update(secrets)
    env, more = _env(composed.hydra.job.env_set)
    os.environ.update(more)
    redact = Redactor(secrets.values(), env_references(config))
    runtime = composed.hydra.runtime.choices
    choices = {
        group: runtime[group]
        for group in ("data", "augment", "model", "optimizer", "scheduler", "trainer")
        if runtime.get(group)
    }
    return freeze(
        config,
        folder,
        name,
        experiment=composed.experiment,
        overrides=[redact.text(override) for override in composed.overrides],
        command=[redact.text(word) for word in ["regente", *sys.argv[1:]]],
        choices=choices,
        env=env,
        swept=list(swept),
    )


def _env(node: DictConfig) -> tuple[dict[str, str], dict[str, str]]:
    """`hydra.job.env_set` as it may be written down, and the variables that hold its literal secrets."""
    plain: Any = OmegaConf.to_container(node)
    kept = {key: raw if VARIABLE.search(str(raw)) else str(node[key]) for key, raw in plain.items()}
    text, secrets = externalize(OmegaConf.to_yaml(OmegaConf.create(kept)))
    env: Any = OmegaConf.to_container(OmegaConf.create(text))
    return env or {}, secrets
