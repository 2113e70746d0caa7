"""Stages 1 to 3 of a run: what the user asks for becomes a composed, checked config, and that becomes a job."""

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from regente.config.check import check as problems_of
from regente.config.compose import Composed
from regente.config.compose import compose as compose_by_hydra
from regente.config.environment import VARIABLE, env_references, externalize
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.errors import ConfigError
from regente.jobs.job import Job
from regente.jobs.job import freeze as make_directory
from regente.training.complete import complete
from regente.training.frozen import set_environment

GROUPS = ("data", "augment", "model", "optimizer", "scheduler", "trainer")  # whose options are recorded


def compose(experiment: str, overrides: Sequence[str]) -> Composed:
    """Stage 1: the experiment's config under the overrides, completed; `hydra.job.env_set` is set from here on.

    Raises:
        ConfigError: with every problem that composition alone can tell.
    """
    composed = compose_by_hydra(experiment, overrides)
    set_environment(*_env(composed.hydra.job.env_set))
    complete(composed.node)
    return composed


def check(composed: Composed, parts: Collection[str] | None = None) -> dict[str, Any]:
    """Stage 2: the config as plain data, its references followed; with `parts`, only these root keys are checked.

    Raises:
        ConfigError: with every reason why it cannot run.
    """
    config = resolve(composed.node)
    if problems := problems_of(config, parts):
        raise ConfigError(problems)
    return config


def freeze(composed: Composed, folder: Path, name: str | None = None, swept: Collection[str] = ()) -> Job:
    """Stage 3: a new job directory in `folder`; secrets that the config holds are moved to the environment."""
    config, secrets = externalize(composed.yaml())
    env, more = _env(composed.hydra.job.env_set)
    os.environ.update({**secrets, **more})
    redact = Redactor(secrets.values(), env_references(config)).text
    chosen = composed.hydra.runtime.choices
    return make_directory(
        config,
        folder,
        name,
        experiment=composed.experiment,
        overrides=[redact(override) for override in composed.overrides],
        command=[redact(word) for word in ["regente", *sys.argv[1:]]],
        choices={group: chosen[group] for group in GROUPS if chosen.get(group)},
        env=env,
        swept=list(swept),
    )


def _env(node: DictConfig) -> tuple[dict[str, str], dict[str, str]]:
    """`hydra.job.env_set` as it may be written to a file, and the variables that hold its literal secrets."""
    if not node:
        return {}, {}
    plain: Any = OmegaConf.to_container(node)
    kept = {key: raw if VARIABLE.search(str(raw)) else str(node[key]) for key, raw in plain.items()}
    text, secrets = externalize(OmegaConf.to_yaml(OmegaConf.create(kept)))
    env: Any = OmegaConf.to_container(OmegaConf.create(text))
    return env, secrets
