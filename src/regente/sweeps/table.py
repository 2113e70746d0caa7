"""What one sees of a sweep: a line or a live table while it runs, and who won at the end."""

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from regente.sweeps.plan import varied
from regente.sweeps.records import best_of, seed_groups
from regente.sweeps.state import JobState

SHOWN = 40  # rows of the table at the end; failures are shown all


class Table:
    """While a sweep runs: on a terminal a table of what runs, done, failed, the best and the time left; else a line a job."""

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

    def note(self, text: str) -> None:
        """A line that stays."""
        self.out.print(Text(text))

    def started(self, state: JobState) -> None:
        """A job starts."""
        self.running[state.id] = (state, time.monotonic())
        if not self.out.is_terminal:
            self.out.print(f"started  {self._words(state)}")

    def finished(self, state: JobState) -> None:
        """A job has ended."""
        self.running.pop(state.id, None)
        self.ended.append(state)
        if not self.out.is_terminal or state.state == "failed":
            self.out.print(
                Text(
                    f"{state.state:<8} {self._words(state)}  {outcome(state)}",
                    style=STYLES.get(state.state, ""),
                )
            )

    def _words(self, state: JobState) -> str:
        return " ".join(varied(state.overrides, self.swept))

    def _table(self) -> Group:
        counts = Counter(state.state for state in self.ended)
        head = [f"{len(self.running)} running", f"{counts['done'] + self.skipped} done"]
        head += [f"{counts['failed']} failed"] if counts["failed"] else []
        head += [f"of {self.total}"] if self.total else []
        if (best := best_of(self.ended, self.mode)) is not None:
            head.append(f"best {self.metric} {best.value:.4f} ({self._words(best)})")
        if left := self.time_left():
            head.append(f"about {duration(left)} left")
        grid = Grid.grid(padding=(0, 2))
        for state, begun in list(self.running.values())[:20]:
            grid.add_row(
                "running", duration(time.monotonic() - begun), Text(self._words(state), style="cyan")
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
    """What became of a job, in words."""
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
    left: str = "",
) -> None:
    """Each job with its metric, failures with their line; the best, and means over seeds. `left`: what was not begun."""
    done = [state for state in states if state.state == "done"]
    started = [state for state in states if state.state != "queued"]
    counts = f"{len(started)} started jobs done, then stopped" if stopped else f"{len(states)} jobs done"
    out.print(Text(f"{len(done)} of {counts}{left}", style="bold"))
    shown = set(_best_first(done, monitor)[:SHOWN])
    for number, state in enumerate(states):
        if state.state in ("failed", "killed") or state.id in shown:
            words = " ".join(varied(state.overrides, swept))
            out.print(Text(f"  #{number}  {outcome(state)}  {words}", style=STYLES.get(state.state, "")))
    if len(done) > SHOWN:
        out.print(f"  and {len(done) - SHOWN} more; all in jobs.csv")
    if best := best_of(states, monitor.get("mode", "max")):
        out.print(f"best {monitor.get('metric')} {best.value:.4f}: {' '.join(varied(best.overrides, swept))}")
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
