"""What the user sees of a sweep: a line for each job or a live table while it runs, and the results at the end."""

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from regente.sweeps.plan import label, varied
from regente.sweeps.records import best_of, seed_groups
from regente.sweeps.state import JobState

MAX_ROWS = 40  # finished jobs in the table at the end; failed jobs are all shown


class Table:
    """The live table of a sweep on a terminal: running jobs, counts, the best, the time left. Else a line for each job."""

    def __init__(
        self, out: Console, swept: Sequence[str], total: int | None, monitor: dict[str, str]
    ) -> None:
        self.out, self.swept, self.total = out, swept, total
        self.metric, self.mode, self.slots = monitor["metric"], monitor["mode"], 1
        self.running: dict[str, tuple[JobState, float]] = {}
        self.ended: list[JobState] = []
        self.skipped = 0  # jobs that earlier sessions have done
        self.live = Live(get_renderable=self._table, console=out, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Table":
        if self.out.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.live.stop()

    def print(self, text: str) -> None:
        """Print a line above the live table."""
        self.out.print(Text(text))

    def started(self, state: JobState) -> None:
        """A job starts."""
        self.running[state.id] = (state, time.monotonic())
        if not self.out.is_terminal:
            self.out.print(f"started  {self._label(state)}")

    def finished(self, state: JobState) -> None:
        """A job has ended."""
        self.running.pop(state.id, None)
        self.ended.append(state)
        if not self.out.is_terminal or state.state == "failed":
            self.out.print(
                Text(
                    f"{state.state:<8} {self._label(state)}  {outcome(state)}",
                    style=STYLES.get(state.state, ""),
                )
            )

    def _label(self, state: JobState) -> str:
        return label(state.overrides, self.swept)

    def _table(self) -> Group:
        counts = Counter(state.state for state in self.ended)
        head = [f"{len(self.running)} running", f"{counts['done'] + self.skipped} done"]
        head += [f"{counts['failed']} failed"] if counts["failed"] else []
        head += [f"of {self.total}"] if self.total else []
        if (best := best_of(self.ended, self.mode)) is not None:
            head.append(f"best {self.metric} {best.value:.4f} ({self._label(best)})")
        if left := self.time_left():
            head.append(f"about {duration(left)} left")
        grid = Grid.grid(padding=(0, 2))
        for state, begun in list(self.running.values())[:20]:
            grid.add_row(
                "running", duration(time.monotonic() - begun), Text(self._label(state), style="cyan")
            )
        return Group(Text("  ".join(head), style="bold"), grid)

    def time_left(self) -> float | None:
        """Seconds, from the mean of the jobs that have ended."""
        done = [state.seconds for state in self.ended if state.state == "done"]
        if not done or not self.total:
            return None
        left = self.total - self.skipped - len(self.ended)
        return max(0.0, left * sum(done) / len(done) / self.slots)


STYLES = {"failed": "red", "killed": "yellow"}


def outcome(state: JobState) -> str:
    """How a job ended, for the user."""
    if state.state == "failed":
        return f"failed with exit code {state.code}: {state.reason}"
    if state.state == "killed":
        return f"stopped: {state.reason}"
    if state.state != "done":
        return state.state
    value = "done" if state.value is None else f"{state.value:.4f}"
    return f"{value} (pruned)" if state.pruned else value


def closing(
    out: Console,
    states: Sequence[JobState],
    swept: Sequence[str],
    monitor: dict[str, str],
    stopped: bool,
    not_started: str = "",
) -> None:
    """Print each job with its metric or error, the best, and means over seeds. `not_started` is added to the counts."""
    swept = varied([state.overrides for state in states], swept)
    done = [state for state in states if state.state == "done"]
    started = [state for state in states if state.state != "queued"]
    counts = f"{len(started)} started jobs done, then stopped" if stopped else f"{len(states)} jobs done"
    out.print(Text(f"{len(done)} of {counts}{not_started}", style="bold"))
    shown = set(_best_first(done, monitor)[:MAX_ROWS])
    for number, state in enumerate(states):
        if state.state in ("failed", "killed") or state.id in shown:
            line = f"  #{number}  {outcome(state)}  {label(state.overrides, swept)}"
            out.print(Text(line, style=STYLES.get(state.state, "")))
    if len(done) > MAX_ROWS:
        out.print(f"  and {len(done) - MAX_ROWS} more; all in jobs.csv")
    if best := best_of(states, monitor.get("mode", "max")):
        out.print(f"best {monitor.get('metric')} {best.value:.4f}: {label(best.overrides, swept)}")
    for group in seed_groups(states, swept):
        mean = f"{group.mean:.4f} +- {group.spread:.4f}, n={len(group.values)}"
        out.print(f"  over seeds  {mean}  {' '.join(group.overrides)}".rstrip())


def _best_first(states: Sequence[JobState], monitor: dict[str, str]) -> list[str]:
    sign = -1 if monitor.get("mode", "max") == "max" else 1
    return [s.id for s in sorted(states, key=lambda s: (s.value is None, sign * (s.value or 0.0)))]


def duration(seconds: float) -> str:
    """`42 s`, `3:05 min` or `2:10 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
