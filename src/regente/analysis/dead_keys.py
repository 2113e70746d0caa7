"""`regente check --dead-keys`: which settings of a command line change nothing, by two steps with and without each."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from regente.analysis.why import Points, part, points_of
from regente.config.discovery import groups
from regente.config.overrides import key_of
from regente.errors import ConfigError, Problem, RegenteError
from regente.jobs.hardware import require

VISIBLE = ("model", "data", "augment", "task", "loss", "metrics", "optimizer", "init_from", "seed")
# settings that are to change no number: how fast, from where, and under which names
SILENT = {
    *("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "on_bad", "root", "path", "class_names"),
    *("compile", "fused", "foreach", "feature_bank", "test_share"),
}  # fmt: skip
STEPS: list[dict[str, Any]] = [
    {"step": 1, "losses": [0.0]},
    {"step": 2, "losses": [0.0]},
    {"step": 2, "epoch": 1},
]


@dataclass(frozen=True)
class Tested:
    """A word of the command line, and what the two trainings said."""

    word: str
    text: str
    dead: bool = False


def dead_keys(experiment: str, overrides: Sequence[str]) -> Iterator[Tested]:
    """Train two steps with all overrides, and without each of them.

    Raises:
        ConfigError: when there are no overrides, or the config with all of them cannot run.
    """
    if not overrides:
        what = "tells whether an override changes anything; give some, as model.width=128"
        raise ConfigError([Problem("--dead-keys", what)])
    config = _composed(experiment, overrides)
    whole = two_steps(experiment, overrides)
    for number, word in enumerate(overrides):
        rest = [*overrides[:number], *overrides[number + 1 :]]
        yield _test(word, experiment, rest, config, whole)


def _test(word: str, experiment: str, rest: Sequence[str], config: dict[str, Any], whole: Points) -> Tested:
    key = key_of(word)
    if key.partition(".")[0] not in VISIBLE or key.rpartition(".")[2] in SILENT:
        return Tested(word, "not tested: two steps cannot show it")
    try:
        if _composed(experiment, rest) == config:
            return Tested(word, "is the value without it, too")
        points = two_steps(experiment, rest)
    except RegenteError:
        return Tested(word, "needed: without it the config cannot run")
    except Exception as error:  # of the user's own code
        return Tested(word, f"needed: without it the training fails ({type(error).__name__})")
    parting, common = part(points, whole)
    if parting is not None or points.keys() != whole.keys():
        where = f"{parting.name} at step {parting.step}" if parting else "what the steps log"
        return Tested(word, f"changes {where}")
    if not common:
        return Tested(word, "not tested: the task logs no losses")
    if key.endswith(".batch_size"):
        return Tested(word, "changes nothing in two steps; maybe all samples are in one batch")
    what = "option" if key in groups() else "setting"
    return Tested(word, f"dead: two steps are equal to the bit without this {what}", dead=True)


def _composed(experiment: str, overrides: Sequence[str]) -> dict[str, Any]:
    from regente.training.prepare import check, compose

    composed = compose(experiment, overrides)
    return check(composed.node)


def two_steps(experiment: str, overrides: Sequence[str]) -> Points:
    """Losses, weights and validation metrics of two steps, in this process and without a record.

    Raises:
        ConfigError: when the config cannot run, or is a sweep.
    """
    from regente.training.prepare import check, compose, freeze
    from regente.training.session import imports, quiet_libraries

    composed = compose(experiment, overrides)
    config = check(composed.node)
    require(config["trainer"])
    trainer = config["trainer"]
    batches = 2 * int(trainer.get("accumulate_grad_batches") or 1)
    trainer |= {
        "limit_train_batches": batches,
        "limit_val_batches": 2,
        "max_steps": 2,
        "num_sanity_val_steps": 0,
    }
    trainer |= {"check_val_every_n_epoch": 1, "find_lr": False, "find_batch_size": False}
    trainer |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    with imports():
        from regente.training.callbacks.trace import Replay
        from regente.training.replay import replay
    with TemporaryDirectory() as folder, quiet_libraries():
        trace = Replay(STEPS)
        replay(freeze(composed, Path(folder)), config, trace)
    gc.collect()  # the model of these steps
    return points_of(trace.lines)
