"""`regente why`: what explains that two runs differ, the most likely cause first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regente.analysis.code_changes import code_differences
from regente.analysis.differences import (
    Difference,
    config_differences,
    data_differences,
    machine_differences,
    not_recorded,
    package_differences,
    resume_differences,
    resumed,
    targets,
)
from regente.errors import ConfigError, Problem, first_of
from regente.inference.rerun import close, pairs
from regente.jobs.job import Job
from regente.jobs.result import read_result
from regente.jobs.runs import find, find_job, shown
from regente.jobs.trace_file import TRACE, Line, read_trace
from regente.tracking.restore import restore

SHOWN = 12  # differences of one kind
ROUNDING = ("machine", "packages")  # kinds that mostly change the last bits only
BITS = ("trainer.precision", "trainer.accelerator", "trainer.devices", "trainer.deterministic")
UPDATES = ("optimizer", "scheduler", "trainer.")  # what cannot change the first loss
Points = dict[tuple[int, int, str], Any]  # by step, order in the step, and name


@dataclass(frozen=True)
class Parting:
    """The first recorded point at which the traces of two runs differ."""

    step: int
    name: str  # loss, weights, or a metric
    a: Any
    b: Any
    equal: int  # the last step before it that is equal to the bit; 0 if there is none
    is_rounding: bool  # whether the first values that differ do so by no more than rounding


@dataclass(frozen=True)
class Explanation:
    """What differs between two runs, the most likely cause first, and where their traces part."""

    a: Job
    b: Job
    differences: list[Difference]
    parting: Parting | None
    points: int  # that both traces have
    unknown: list[str]  # what was not recorded

    @property
    def causes(self) -> list[Difference]:
        """The differences that can change a number."""
        return [each for each in self.differences if each.kind != "records"]

    def lines(self) -> Iterator[str]:
        """The answer for the terminal."""
        for name, job in (("A", self.a), ("B", self.b)):
            yield f"{name}  {shown(job.path)}  {_metrics(job)}".rstrip()
        yield from self._differences()
        yield self._trace()
        if self.unknown:
            yield f"not recorded by both: {', '.join(self.unknown)}"

    def _differences(self) -> Iterator[str]:
        found = self.causes
        if len(found) == 1:
            yield f"nothing differs but {found[0].name}: {found[0].text}"
        elif found:
            yield f"{len(found)} differences, the most likely cause first (A | B):"
        else:
            yield "nothing differs in config, data, code, packages and machine"
        left = dict[str, int]()
        for each in found if len(found) > 1 else []:
            left[each.kind] = left.get(each.kind, 0) + 1
            if left[each.kind] <= SHOWN:
                yield f"  {each.kind:<9} {each.name}  {each.text}"
        for kind, number in left.items():
            if number > SHOWN:
                yield f"  {kind:<9} and {number - SHOWN} more"
        if records := [each.name for each in self.differences if each.kind == "records"]:
            yield f"also other, without an effect on a step: {first_of(records)}"

    def _trace(self) -> str:
        if not self.points:
            return f"traces: they cannot be compared; {TRACE} is missing, or has no step in common"
        part = self.parting
        if part is None:
            return f"traces: equal to the bit at all {self.points} common points"
        before = f"equal to the bit up to step {part.equal}; " if part.equal else ""
        size = ", which is rounding" if part.is_rounding else ""
        values = "" if part.name == "weights" else f" {part.a!r} | {part.b!r}"
        return f"traces: {before}they part at step {part.step}: {part.name}{values}{size}"


def explain(first: str, second: str | None, project: Path, scratch: Path) -> Explanation:
    """Compare two runs, or one run with the best of its experiment; `scratch`: for runs that only the store has.

    Raises:
        ConfigError: when the only run is the best itself, or a config cannot be read.
        TrackingError: when a name matches no run, or several.
    """
    a = _job(first, project, scratch / "a")
    b = _job(second, project, scratch / "b") if second else find(f"{a.experiment}:best", project).job
    if a.path == b.path:
        what = "is the best run of its experiment; name" if second is None else "is both runs; name"
        raise ConfigError([Problem(first, f"{what} another one: regente why A B")])
    parting, points = part(*(points_of(read_trace(job.path / TRACE)) for job in (a, b)))
    found = [
        *config_differences(a, b),
        *data_differences(a, b),
        *code_differences(a.path, b.path, project, targets(a) | targets(b)),
        *package_differences(a, b),
        *resume_differences(a, b),
        *machine_differences(a, b),
    ]
    resumes = [step for times, step in (resumed(a), resumed(b)) if times]
    ordered = sorted(found, key=lambda each: _place(each, parting, resumes))
    return Explanation(a, b, ordered, parting, points, not_recorded(a, b))


def _job(name: str, project: Path, scratch: Path) -> Job:
    scratch.mkdir()
    return restore(name, project, scratch) or find_job(name, project)


def _place(each: Difference, parting: Parting | None, resumes: Sequence[int]) -> tuple[int, ...]:
    """The order of the causes: what the traces show comes before what is likely in general."""
    shown_by_trace = False
    if parting and parting.is_rounding:
        shown_by_trace = each.kind in ROUNDING or each.name in BITS
    elif parting and parting.equal:
        after_resume = any(parting.step > step for step in resumes)
        shown_by_trace = each.name.startswith(UPDATES) or (each.kind == "resumed" and after_resume)
    return (each.kind == "records", not shown_by_trace, *each.place)


def points_of(lines: Iterable[Line]) -> Points:
    """What a trace says of each step: the loss, the weights after it, the metrics after those."""
    found: Points = {}
    for line in lines:
        for step, name, value, _ in pairs(line, {}):
            found[step, 0 if name == "loss" else 2, name] = value
        if "weights" in line:
            found[line["step"], 1, "weights"] = line["weights"]
    return found


def part(
    a: dict[tuple[int, int, str], Any], b: dict[tuple[int, int, str], Any]
) -> tuple[Parting | None, int]:
    """Where two traces part, and the number of points that both have."""
    common = sorted(a.keys() & b.keys())
    other = [key for key in common if repr(a[key]) != repr(b[key])]  # repr: NaN is not equal to itself
    if not other:
        return None, len(common)
    first = other[0]
    equal = max((step for step, *_ in common[: common.index(first)]), default=0)
    values = [key for key in other if key[2] != "weights"][:1]
    rounding = all(close(a[key], b[key]) for key in values)
    return Parting(first[0], first[2], a[first], b[first], equal, rounding), len(common)


def _metrics(job: Job) -> str:
    values = read_result(job.path).get("metrics", {})
    return " ".join(f"{name} {value:.4f}" for name, value in values.items())
