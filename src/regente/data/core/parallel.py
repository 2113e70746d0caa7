"""Work that is spread over the cores in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from regente.jobs.hardware import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], start_thread: Callable[[], None] | None = None
) -> Iterator[Result]:
    """The result for each item, in order; each thread begins with `start_thread`.

    Items are taken by the calling thread. At most two per core wait at a time, which bounds the memory.
    """
    pool, waiting = ThreadPoolExecutor(cores(), initializer=start_thread), deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def progress_bar(console: Console | None = None) -> Progress:
    """A progress bar on a terminal, nothing elsewhere; without a console it is written to stdout."""
    console = console or Console()
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
