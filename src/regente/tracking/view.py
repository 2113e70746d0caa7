"""The comparison of runs in MLflow's UI: a saved view of an experiment."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regente.tracking import mlflow_internals as internals
from regente.tracking.store import named

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

JOBS = "tags.`regente.kind` = 'job'"
Groups = tuple[list[tuple[str, str]], set[tuple[str, ...]]]


def log_view(
    client: "MlflowClient",
    experiment: str,
    parent: str | None,
    monitor: dict[str, str],
    runs: "Sequence[Run]" = (),
) -> bool:
    """Save the comparison of a sweep's runs, or of all runs of an experiment, best first; whether MLflow took it."""
    wanted = f"tags.mlflow.parentRunId = '{parent}'" if parent else JOBS
    runs = runs or client.search_runs([experiment], wanted, max_results=1000)
    logged = {key for run in runs for key in run.data.metrics}
    metric, groups = named(monitor["metric"]), grouping(runs)
    swept = swept_keys([run.data.params for run in runs])
    best = f"best/{metric}" if f"best/{metric}" in logged else metric
    score = "test/mae" if "test/mae" in logged else "test/acc"
    return write_view(
        client,
        experiment,
        key=view_key(experiment, parent),
        name="The sweep" if parent else "All jobs",
        metrics=[best, "test/loss", score, "val/loss"],
        params=[key for key in swept if not groups or key != "seed"][:8],
        groups=groups,
        curves={
            each: all(run.data.metrics.get(each, 1) > 0 for run in runs)
            for each in (metric, "train/loss", "val/loss")
            if each in logged
        },
        ascending=monitor["mode"] == "min",
        parent=parent,
    )


def view_key(experiment: str, parent: str | None) -> str:
    """The key of a comparison's view, which is replaced when it is written again."""
    return f"regente-{(parent or experiment)[:12]}"


def write_view(
    client: "MlflowClient",
    experiment_id: str,
    *,
    key: str,
    name: str,
    metrics: list[str],
    params: list[str],
    ascending: bool,
    parent: str | None,
    groups: Groups | None = None,
    curves: dict[str, bool] | None = None,
) -> bool:
    """Save a table of a sweep's runs, or of all runs, sorted by the first metric; whether MLflow took it.

    The format of a view is private to MLflow, so no failure here is an error.
    """
    columns = {f"metrics.`{each}`": each for each in metrics} | {f"params.`{each}`": each for each in params}
    # the UI's own nesting would hide the runs under their parent, and their curves
    search = f"tags.mlflow.parentRunId = '{parent}'" if parent else JOBS if groups else ""
    state = internals.view_state(columns, f"metrics.`{metrics[0]}`", ascending, search)
    if groups:
        state |= internals.grouped(*groups)
    state |= internals.charts(name, curves or {}, params, metrics[0])
    tag, uri = internals.VIEW_TAG + key, client.tracking_uri
    try:
        if uri.startswith(("http://", "https://")) and not internals.server_shows_views(uri):
            return False
        before = client.get_experiment(experiment_id).tags.get(tag)
        value = internals.view_tag_value(name, state, before, int(time.time() * 1000))
        client.set_experiment_tag(experiment_id, tag, value)
    except Exception:  # a view is optional: it must never end a run
        return False
    return True


def grouping(runs: "Sequence[Run]") -> Groups | None:
    """What makes the runs that differ in the seed alone one row; None where there are none, or too many for one page.

    The params that tell the configurations apart, as few as do, and the values of each configuration.
    """
    if len(runs) > internals.TABLE_ROWS:
        return None
    params = [run.data.params for run in runs]
    keys = [key for key in swept_keys(params) if key != "seed"]
    preferred = {key for run in runs for key in run.data.tags.get("regente.swept", "").split(", ")}

    def rows(chosen: list[str]) -> set[tuple[str, ...]]:
        return {tuple(run.get(key, "") for key in chosen) for run in params}

    chosen: list[str] = []
    for key in sorted(keys, key=lambda key: key not in preferred):
        if len(rows([*chosen, key])) > len(rows(chosen)):
            chosen.append(key)
    if len(rows(chosen)) == len(runs):
        return None
    if not chosen:
        tag = "regente.experiment"  # the same for all
        return [("tag", tag)], {(run.data.tags.get(tag, ""),) for run in runs}
    return [("param", key) for key in chosen], rows(chosen)


def swept_keys(runs: list[dict[str, str]]) -> list[str]:
    """The params that differ among these runs, or that only some have: numbers first, then by name.

    Those that take their value from the seed are left out.
    """
    keys = {key for run in runs for key in run}
    values = {key: {run.get(key) for run in runs} for key in keys}
    swept = [key for key in keys if len(values[key]) > 1]
    swept = [key for key in swept if key == "seed" or any(run.get(key) != run.get("seed") for run in runs)]
    return sorted(swept, key=lambda key: (not all(map(is_number, values[key])), key))


def is_number(text: Any) -> bool:
    """Whether a param's value is a finite number, which MLflow puts on a numeric axis."""
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False


def latest_experiment(client: "MlflowClient") -> str | None:
    """The experiment of the run that was started last; None in a store without runs."""
    experiments: list[str] = []
    token: str | None = None
    while True:
        page = client.search_experiments(page_token=token)
        experiments += [experiment.experiment_id for experiment in page]
        if not (token := page.token):
            break
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    return str(runs[0].info.experiment_id) if runs else None
