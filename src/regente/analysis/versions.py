"""Other data and other code among runs of the same settings."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from regente.analysis.run_records import RunRecord
from regente.jobs.runs import shown

DIGEST = "data digest"  # the column that keeps runs on other data apart
MOST_DIFFS = 20  # of commits, by git, each 10 ms


def versions(configuration: Sequence[RunRecord]) -> dict[Path, str]:
    """The data of each run of one configuration, where these changed between the runs; else nothing.

    They did not change where each seed has data of its own: those are split or drawn by the seed. A run that has not
    read its data yet belongs to the latest ones.
    """
    known = [run for run in configuration if run.data]
    seeds = {(run.seed, run.data) for run in known}
    several = len({data for _, data in seeds}) > 1
    if not several or of_seeds(configuration):
        return {}
    latest = max(known, key=lambda run: run.age).data
    return {run.path: run.data or ("" if run.state == "done" else latest) for run in configuration}


def of_seeds(configuration: Sequence[RunRecord]) -> bool:
    """Whether each seed has data of its own."""
    pairs = {(run.seed, run.data) for run in configuration if run.data}
    return len(pairs) > 1 and all(len(set(column)) == len(pairs) for column in zip(*pairs, strict=True))


def code_notes(rows: Iterable[Sequence[RunRecord]], project: Path) -> Iterator[str]:
    """A line where runs of one row, or else those of different rows, were made by different code."""
    kinds: dict[tuple[str, str], RunRecord] = {}  # the first run of each code, by commit and patch
    mixed, first, other = 0, None, None
    for row in rows:
        here: dict[Path, RunRecord] = {}
        for run in row:
            if any(run.code):
                if run.code not in kinds:
                    kinds[run.code] = _same_code(run, kinds, project)
                here[kinds[run.code].path] = run
        if len(here) > 1:
            mixed += 1
            if mixed == 1:
                first, other, *_ = here.values()
        first = first or next(iter(here.values()), None)
        if not mixed and first and kinds[first.code].path not in here:
            other = next(iter(here.values()), other)
    if first and other:
        where = (
            f"{mixed} {'row holds' if mixed == 1 else 'rows hold'} runs"
            if mixed
            else "rows were made by runs"
        )
        yield f"{where} of different code; what changed: regente why {shown(first.path)} {shown(other.path)}"


def _same_code(run: RunRecord, kinds: dict[tuple[str, str], RunRecord], project: Path) -> RunRecord:
    """The first run whose code differs from this one's in no file of code, or the run itself."""
    from regente.analysis.code_changes import code_differences

    if len(kinds) <= MOST_DIFFS:
        for known in dict.fromkeys(kinds.values()):
            found = code_differences(known.path, run.path, project)
            if not any(each.kind == "code" for each in found):
                return known
    return run
