"""Looking again at what a run has learned: on its own data, or on other data with the same facts."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.config.check import check
from regente.config.compose import recompose
from regente.config.environment import env_references, externalize
from regente.config.interpolation import resolve, to_yaml
from regente.config.redaction import Redactor
from regente.errors import ConfigError, Problem
from regente.jobs import console
from regente.jobs.job import Job, freeze
from regente.jobs.runs import EVALUATION, Run, shown
from regente.jobs.trust import read_config, require_known_env
from regente.training.complete import complete
from regente.training.session import Ended, imports, session

if TYPE_CHECKING:
    from rich.console import Console


MOST = 20  # classes that are shown
CHANGEABLE = ("data", "trainer", "tracking")
PARTS = (
    "data",
    "model",
    "task",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
)  # that are built once more
FACTS = (
    "num_classes",
    "input_shape",
    "vocab_size",
    "every_position",
)  # of the data, that the weights are made for


def evaluate(found: Run, overrides: Sequence[str], *, debug: bool = False) -> Ended:
    """Evaluate a run as a job of its own, in the run's directory and under its MLflow run.

    Raises:
        ConfigError: when the overrides are wrong, or the data is not what the weights are made for.
        CheckpointError: when the run has no weights.
    """
    checkpoint = found.checkpoint
    job = _freeze(found, overrides)

    own = not any(word.lstrip("+~").startswith("data") for word in overrides)
    with session(job, resolve(job.config), kind="evaluation", debug=debug) as current:
        with imports():
            from regente.inference.measuring import evaluation
        console.row(current.out, "weights", shown(checkpoint))
        metrics, rows = evaluation(job, current.config, found, current.recorder, current.out)
        _show(current.out, found, job, metrics, rows, own=own)
    return Ended(job, current.exit_code)


def _freeze(found: Run, overrides: Sequence[str]) -> Job:
    """The job directory of the evaluation, in that of the run."""
    if wrong := [
        word for word in overrides if word.lstrip("+~").split(".")[0].split("=")[0] not in CHANGEABLE
    ]:
        what = f"the run was trained so; an evaluation may change {', '.join(CHANGEABLE)}"
        raise ConfigError([Problem(word, what) for word in wrong])
    require_known_env(found.job)
    own_store = any(word.lstrip("+").startswith(("tracking=", "tracking.uri=")) for word in overrides)
    recorded = read_config(found.job, Path.cwd(), PARTS if own_store else (*PARTS, "tracking"))
    node = recompose(found.job.config, overrides)
    node.init_from = None  # it has weights: the run's
    complete(node)
    node.tracking.run_name = f"evaluation of {found.job.experiment}: {' '.join(overrides) or 'its own data'}"
    config = resolve(node)
    problems = check(config, set(CHANGEABLE)) or [
        Problem(
            f"data.{key}",
            f"{config['data'].get(key)}; the run's weights are made for {recorded['data'].get(key)}",
        )
        for key in FACTS
        if config["data"].get(key) != recorded["data"].get(key)
    ]
    if problems:
        raise ConfigError(problems)
    text, secrets = externalize(to_yaml(node))
    os.environ.update(secrets)
    redact = Redactor(secrets.values(), env_references(text)).text
    return freeze(
        text,
        found.job.path,
        time.strftime(f"{EVALUATION}%Y%m%d-%H%M%S", time.gmtime()),
        experiment=found.job.experiment,
        overrides=[redact(override) for override in overrides],
        command=[redact(word) for word in ["regente", *sys.argv[1:]]],
        choices=found.job.choices,
        env=found.job.env,
    )


def _show(
    out: "Console", found: Run, job: Job, metrics: dict[str, float], rows: dict[str, list[Any]], *, own: bool
) -> None:
    """The numbers of each split, the classes of the test split, and whether all is as it was at training."""
    for split in ("val", "test"):
        values = [(name, value) for name, value in metrics.items() if name.startswith(f"{split}/")]
        if values:
            console.row(
                out, split, "  ".join(f"{name.partition('/')[2]} {value:.4f}" for name, value in values)
            )
    if classes := rows.get("test"):
        few = classes
        if len(classes) > MOST:
            few = sorted((row for row in classes if row[4]), key=lambda row: row[3])[: MOST // 2]
        width = max(len(row[0]) for row in few)
        console.row(out, "test", f"{'class':<{width}}  precision  recall      f1  support")
        for name, precision, recall, f1, support in few:
            line = f"{name:<{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {support:7}"
            console.row(out, "", line)
        if len(classes) > MOST:
            console.row(out, "", f"the least F1 of {len(classes)} classes; all are in test.csv")
    if own:
        before = found.result["metrics"]
        other = [name for name, value in before.items() if metrics.get(name) != value]
        text = ", ".join(f"{name} {metrics.get(name)!r}, was {before[name]!r}" for name in other)
        console.row(out, "as trained", f"differs: {text}" if other else "equal to the bit")
    console.row(out, "job", shown(job.path))
