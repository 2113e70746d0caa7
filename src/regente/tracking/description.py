"""The description of a run on its page in MLflow: first how it stands, then what it is; texts of people are kept."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regente.jobs.job import QUEUE, Job, read_json
from regente.jobs.result import read_result
from regente.jobs.runs import job_directories, sweeps_among
from regente.jobs.streams import markdown
from regente.tracking.mlflow_internals import run_link
from regente.tracking.shipping_state import read_state
from regente.tracking.store import named

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

TAG = "mlflow.note.content"
LIMIT = 5000  # characters of a tag that every store takes
BEGIN, END = "<!-- written by Regente, and replaced -->", "<!-- end of what Regente writes -->"


def merged(text: str, before: str) -> str:
    """A description with a new text in the place of Regente's last one; what others wrote there is kept."""
    head, found, rest = before.partition(BEGIN)
    head, tail = (head, rest.partition(END)[2]) if found else ("", before)
    head, tail = head.strip(), tail.strip()
    room = LIMIT - sum(map(len, (head, tail, BEGIN, END))) - 8
    if len(text) > room:
        text = text[: max(0, room)].rpartition("\n")[0]
    return "\n\n".join(filter(None, [head, BEGIN, text.strip(), END, tail]))


def describe(job: Job, result: dict[str, Any], notes: str) -> str:
    """Markdown: how the run stands, the user's notes, all metrics, experiment, overrides, command and job directory."""
    metrics, best = result["metrics"], result["best_epoch"]
    values = ", ".join(f"{name} **{value:.4g}**" for name, value in metrics.items())
    epoch = "" if best is None else f" after epoch {best + 1} of {result['epochs']}"
    parts = [
        standing(job, result), notes, f"{values}{epoch}", f"Experiment `{job.experiment}`, with",
        "\n".join(f"- `{override}`" for override in job.overrides) or "- none",
        f"```\n{' '.join(job.command)}\n```", f"Job directory `{job.path}`",
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts))


def standing(job: Job, result: dict[str, Any]) -> str:
    """How a run stands among the finished runs of its experiment that have the same data and monitored metric."""
    monitor, folder = result.get("monitor"), job.path.resolve().parent
    if not monitor or (value := _value(result, monitor)) is None:
        return ""
    said = f"{monitor['metric']} **{value:.4g}**"
    if (job.path.parent / QUEUE).is_file():
        sweep = linked("a sweep", job.path.parent)
        return f"{said}; a job of {sweep}, which ranks its jobs at its end"
    if not folder.as_posix().endswith(f"/runs/{job.experiment}"):
        return said
    there = job_directories(folder)
    others = {
        path: found for path in set(there) - sweeps_among(there) - {job.path.resolve()}
        if (found := _value(read_result(path), monitor)) is not None and _data(path) == job.choices.get("data")
    }  # fmt: skip
    ranked = Ranked(monitor, [value, *others.values()])
    best = min(others, key=lambda path: ranked.sign * others[path], default=job.path)
    return ranked.line(value, f"runs of {job.experiment} when it ended", linked(best.name, best))


class Ranked:
    """Values of a metric, best first."""

    def __init__(self, monitor: dict[str, str], values: Sequence[float]) -> None:
        self.metric, self.sign = monitor["metric"], 1 if monitor["mode"] == "min" else -1
        self.values = sorted(self.sign * value for value in values)

    def line(self, value: float, where: str, best: str) -> str:
        """`val/acc 0.95: place 2 of 7 runs of digits_mlp; best 0.96 (NAME)`."""
        better = bisect_left(self.values, self.sign * value)
        said = f"{self.metric} **{value:.4g}**: place {better + 1} of {len(self.values)} {where}"
        return said + (f"; best {self.sign * self.values[0]:.4g} ({best})" if better else "")


def _value(result: dict[str, Any], monitor: dict[str, str]) -> float | None:
    """The monitored metric of a finished run; None where it has none, monitors another one, or was pruned."""
    if result.get("pruned") or result.get("monitor") != monitor:
        return None
    value = float(result.get("metrics", {}).get(monitor["metric"], math.nan))
    return value if math.isfinite(value) else None


def _data(path: Path) -> Any:
    """The option of the config group `data`."""
    choices = read_json(path / "job.json").get("choices")
    return choices.get("data") if isinstance(choices, dict) else None


def linked(name: str, path: Path) -> str:
    """A name with a link to the run in MLflow of a job directory, where it has one."""
    state = read_state(path)
    run, experiment = state.get("run_id", ""), state.get("experiment_id", "")
    return link(name, run_link(experiment, run)) if run.isalnum() and experiment.isalnum() else markdown(name)


def link(name: str, address: str) -> str:
    """A link of Markdown."""
    return f"[{markdown(name)}]({address})"


def rank_jobs(client: "MlflowClient", runs: "Sequence[MlflowRun]", monitor: dict[str, str]) -> None:
    """Write into the description of each job of a sweep how it stands among them."""
    metric, rows = named(monitor["metric"]), []
    for run in runs:
        value = run.data.metrics.get(f"best/{metric}", run.data.metrics.get(metric, math.nan))
        if run.info.status == "FINISHED" and "regente.pruned" not in run.data.tags and math.isfinite(value):
            rows.append((value, run))
    if not rows:
        return
    ranked = Ranked(monitor, [value for value, _ in rows])
    best = min(rows, key=lambda row: ranked.sign * row[0])[1].info
    name = link(best.run_name, run_link(best.experiment_id, best.run_id))
    for value, run in rows:
        sweep = run_link(run.info.experiment_id, run.data.tags["mlflow.parentRunId"])
        line = ranked.line(value, f"jobs of {link('its sweep', sweep)}", name)
        head, found, rest = run.data.tags.get(TAG, "").partition(BEGIN)
        first, end, tail = rest.lstrip().partition("\n")
        if found and first.startswith(f"{ranked.metric} **") and first != line:
            client.set_tag(run.info.run_id, TAG, f"{head}{BEGIN}\n\n{line}{end}{tail}")
