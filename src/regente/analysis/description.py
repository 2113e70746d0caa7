"""The comparison of a sweep's jobs as Markdown, for the page of the sweep's run in MLflow."""

from pathlib import Path

from regente.analysis.comparison import Comparison
from regente.analysis.formats import as_markdown
from regente.jobs.streams import markdown
from regente.tracking.description import LIMIT, link, linked
from regente.tracking.mlflow_internals import run_link, view_link
from regente.tracking.shipping_state import read_state
from regente.tracking.view import view_key

MOST = 20  # rows
ROOM = LIMIT - 500  # for what people write there


def describe_sweep(found: Comparison, sweep: Path, notes: str) -> str:
    """The table as far as there is room, the user's notes, the verdict and what to know about it, and links."""
    lines = found.lines()
    best = [group.best_run.path for group in found.groups[:MOST] if group.best_run]
    links = {path.name: linked(path.name, path) for path in best}
    for most in (MOST, 10, 5, 2):
        more = len(found.groups) - most
        parts = [
            as_markdown(found, most, links), f"and {more:,} more in `report.html`" if more > 0 else "",
            notes, "\n".join(f"- {markdown(line)}" for line in lines), _links(sweep),
        ]  # fmt: skip
        text = "\n\n".join(filter(None, parts))
        if len(text) <= ROOM:
            break
    return text


def _links(sweep: Path) -> str:
    state = read_state(sweep)
    run, experiment = state.get("run_id"), state.get("experiment_id")
    if not (run and experiment):
        return ""
    page = {
        chart: view_link("", experiment, view_key(experiment, run), chart=chart)[1:]
        for chart in (False, True)
    }
    links = {
        "all jobs as a table": page[False], "as charts": page[True],
        "report": run_link(experiment, run, "/artifacts/report.html"),
    }  # fmt: skip
    return ", ".join(link(name, address) for name, address in links.items())
