"""Stages 1 to 3 of a run: what the user asks for becomes a composed, checked config, and that becomes a job."""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regente.config.check import check as problems_of
from regente.config.compose import Composed
from regente.config.compose import compose as compose_by_hydra
from regente.config.environment import VARIABLE, env_references, externalize
from regente.config.interpolation import references, resolve, to_yaml, without_resolvers
from regente.config.redaction import Redactor
from regente.config.schema import ROOT_KEYS
from regente.errors import ConfigError, Problem
from regente.jobs.job import Job
from regente.jobs.job import freeze as make_directory
from regente.training.complete import NONE, complete
from regente.training.frozen import set_environment

GROUPS = (
    "data",
    "augment",
    "model",
    "loss",
    "metrics",
    "optimizer",
    "scheduler",
    "trainer",
)  # whose options are recorded


def compose(experiment: str, overrides: Sequence[str]) -> Composed:
    """Stage 1: the experiment's config under the overrides, completed; `hydra.job.env_set` is set from here on.

    Raises:
        ConfigError: with every problem that composition alone can tell.
    """
    composed = compose_by_hydra(experiment, overrides)
    set_env(composed)
    complete(composed.node, overrides=composed.overrides)
    return composed


def set_env(composed: Composed) -> None:
    """Set `hydra.job.env_set` in this process: the config may refer to these variables."""
    set_environment(*_env(composed.hydra.job.env_set))


def check(
    node: DictConfig, parts: Collection[str] | None = None, known: dict[str, list[Problem]] | None = None
) -> dict[str, Any]:
    """Stage 2: a config as plain data, its references followed; with `parts`, only these root keys are checked.

    `known`: the problems of parts that were checked before.

    Raises:
        ConfigError: with every reason why it cannot run.
    """
    config = resolve(node)
    shared = references(OmegaConf.to_yaml(node)) if {*config}.difference(ROOT_KEYS) else ()
    if problems := problems_of(config, parts, known, shared):
        raise ConfigError(problems)
    return config


def freeze(composed: Composed, folder: Path, name: str | None = None, swept: Collection[str] = ()) -> Job:
    """Stage 3: a new job directory in `folder`; secrets that the config holds are moved to the environment."""
    env, more = _env(composed.hydra.job.env_set)
    os.environ.update(more)
    config, redact = without_secrets(to_yaml(without_resolvers(composed.node)), more.values())
    chosen = composed.hydra.runtime.choices
    unused = [group for group in GROUPS if composed.node.get(group) == NONE and chosen.get(group) != "none"]
    return make_directory(
        config,
        folder,
        name,
        experiment=composed.experiment,
        overrides=[redact(override) for override in composed.overrides],
        command=[redact(word) for word in ["regente", *sys.argv[1:]]],
        choices={group: chosen[group] for group in GROUPS if chosen.get(group) and group not in unused},
        env=env,
        swept=list(swept),
    )


def without_secrets(text: str, known: Iterable[str] = ()) -> tuple[str, Callable[[str], str]]:
    """A config's text with its secrets moved to the environment of this process, and what masks them in other texts.

    `known`: further secrets to mask.
    """
    text, secrets = externalize(text)
    os.environ.update(secrets)
    return text, Redactor([*secrets.values(), *known], env_references(text)).text


def _env(node: DictConfig) -> tuple[dict[str, str], dict[str, str]]:
    """`hydra.job.env_set` as it may be written to a file, and the variables that hold its literal secrets."""
    if not node:
        return {}, {}
    plain: Any = OmegaConf.to_container(node)
    kept = {key: raw if VARIABLE.search(str(raw)) else str(node[key]) for key, raw in plain.items()}
    text, secrets = externalize(OmegaConf.to_yaml(OmegaConf.create(kept)))
    env: Any = OmegaConf.to_container(OmegaConf.create(text))
    return env, secrets
