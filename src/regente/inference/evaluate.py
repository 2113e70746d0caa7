"""`regente evaluate`: a run's weights on its own data, or on other data with the same shapes and classes."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.config.compose import recompose
from regente.config.interpolation import resolve, to_yaml
from regente.errors import ConfigError, Problem, first_of
from regente.inference.rerun import CLOSE, close
from regente.jobs import console
from regente.jobs.job import Job, freeze
from regente.jobs.result import split_of
from regente.jobs.runs import EVALUATION, Run, shown
from regente.jobs.trust import read_config, require_known_env
from regente.training.complete import complete
from regente.training.frozen import set_environment
from regente.training.prepare import check, without_secrets
from regente.training.run import Ended
from regente.training.session import imports, session

if TYPE_CHECKING:
    from rich.console import Console


MOST = 20  # classes that are printed; of more only the worst half of that
CHANGEABLE = ("data", "trainer", "tracking")
GROUPS = (
    "data",
    "model",
    "task",
    "loss",
    "metrics",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
)  # instantiated again
SHAPES = (
    "num_classes",
    "input_shape",
    "vocab_size",
    "every_position",
)  # of the data: the weights depend on them


def evaluate(found: Run, overrides: Sequence[str], *, debug: bool = False) -> Ended:
    """Evaluate a run as a job in the run's directory and as a child of its MLflow run.

    Raises:
        ConfigError: when the overrides are wrong, or the data does not fit the weights.
        CheckpointError: when the run has no weights.
    """
    checkpoint = found.checkpoint
    job = _freeze(found, overrides)

    with session(job, resolve(job.config), kind="evaluation", debug=debug) as current:
        with imports():
            from regente.inference.metrics import evaluate_weights
        out = current.out
        console.row(out, "weights", shown(checkpoint))
        metrics, rows = evaluate_weights(job, current.config, found, current.recorder, out)
        _print_metrics(out, metrics, rows)
        if not any(word.lstrip("+~").startswith("data") for word in overrides):
            _print_differences(out, found.result["metrics"], metrics)
        console.row(out, "job", shown(job.path))
    return Ended(job, current.exit_code)


def _freeze(found: Run, overrides: Sequence[str]) -> Job:
    """Make the job directory of the evaluation in that of the run."""
    groups = {word: word.lstrip("+~").split(".")[0].split("=")[0] for word in overrides}
    if wrong := [word for word, group in groups.items() if group not in CHANGEABLE]:
        what = f"fixed by the training; an evaluation may change {', '.join(CHANGEABLE)}"
        raise ConfigError([Problem(word, what) for word in wrong])
    require_known_env(found.job)
    set_environment(found.job.env)
    own_store = any(word.lstrip("+").startswith(("tracking=", "tracking.uri=")) for word in overrides)
    recorded = read_config(found.job, Path.cwd(), GROUPS if own_store else (*GROUPS, "tracking"))
    node = recompose(found.job.config, overrides)
    node.init_from = None  # the weights are the run's
    complete(node)
    node.tracking.run_name = f"evaluation of {found.job.experiment}: {' '.join(overrides) or 'its own data'}"
    config = check(node, set(CHANGEABLE))
    now, then = config["data"], recorded["data"]
    problems = [
        Problem(f"data.{key}", f"{now.get(key)}; the run's weights are made for {then.get(key)}")
        for key in SHAPES
        if now.get(key) != then.get(key)
    ]
    if problems:
        raise ConfigError(problems)
    text, redact = without_secrets(to_yaml(node))
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


def _print_metrics(out: "Console", metrics: dict[str, float], rows: dict[str, list[Any]]) -> None:
    """Print the metrics of each split, and a table of the classes of the test split."""
    for split in ("val", "test"):
        named = [(split_of(name), value) for name, value in metrics.items()]
        # a name without a split is of the validation: those of a test are named so
        values = [f"{name} {value:.4f}" for (found, name), value in named if (found or "val") == split]
        if values:
            console.row(out, split, "  ".join(values))
    classes = rows.get("test") or []
    printed = classes
    if len(classes) > MOST:
        printed = sorted((row for row in classes if row[4]), key=lambda row: row[3])[: MOST // 2]
    if classes:
        width = max(len(row[0]) for row in printed)
        console.row(out, "test", f"{'class':<{width}}  precision  recall      f1  support")
        for name, precision, recall, f1, support in printed:
            line = f"{name:<{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {support:7}"
            console.row(out, "", line)
    if len(classes) > MOST:
        console.row(out, "", f"the lowest F1 of {len(classes)} classes; all are in test.csv")


def _print_differences(out: "Console", before: dict[str, float], now: dict[str, float]) -> None:
    """Print whether the metrics on the run's own data are those that were recorded after its training."""
    evaluated = {name: value for name, value in before.items() if split_of(name)[0] != "train"}
    if missing := [
        name for name in evaluated if name not in now
    ]:  # of the user's callbacks, which do not run here
        console.row(out, "left out", f"{first_of(missing)}: logged by a callback, or only in a training")
    evaluated = {name: value for name, value in evaluated.items() if name in now}
    if not evaluated:
        return
    other = [name for name, value in evaluated.items() if now.get(name) != value]
    text = ", ".join(f"{name} {now.get(name)!r}, was {before[name]!r}" for name in other)
    # several ranks add up in another order than one
    word = (
        f"equal within {CLOSE:g}" if all(close(before[name], now.get(name)) for name in other) else "differs"
    )
    console.row(out, "as trained", f"{word}: {text}" if other else "equal to the bit")
