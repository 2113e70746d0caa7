"""A comparison as a table for people: text, CSV, Markdown, LaTeX and HTML."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from regente.analysis.comparison import STATISTICS, Comparison
from regente.analysis.groups import Group, shown
from regente.jobs.streams import printable

FORMATS = ("table", "csv", "json", "md", "latex", "html")
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    each: f"\\{each}" for each in "&%$#_{}"
}


def cells(found: Comparison, most: int | None = None) -> tuple[list[str], list[list[str]], int]:
    """The header, the first `most` rows, and how many columns are settings, which stand on the left.

    Where no configuration has several seeds, the value stands for the mean, and the columns about seeds are left out.
    """
    several = any(group.n > 1 for group in found.groups)
    test = found.metric.of_test
    statistics = (
        ["n", found.metric.name, "sd", "95 % interval", "best", "worst"] if several else [found.metric.name]
    )
    with_test = bool(test) and any(not math.isnan(group.mean_of(test)) for group in found.groups)
    states = any(group.count("running") for group in found.groups)
    header = [
        *found.names.values(),
        *statistics,
        *([test] * with_test),
        *(["running"] * states),
        "best run" if several else "run",
    ]
    rows = []
    for group in found.groups[:most]:
        row = [*map(shown, group.settings.values()), *_statistics(group, several)]
        row += [number(group.mean_of(test))] * with_test + [str(group.count("running"))] * states
        rows.append([*row, group.best_run.path.name if group.best_run else ""])
    return header, [[printable(cell) for cell in row] for row in rows], len(found.names)


def _statistics(group: Group, several: bool) -> list[str]:
    if not several:
        return [number(group.mean)]
    low, high = group.interval
    interval = "" if math.isnan(low) else f"{number(low)} to {number(high)}"
    return [
        str(group.n),
        number(group.mean),
        number(group.sd),
        interval,
        number(group.best),
        number(group.worst),
    ]


def number(value: float) -> str:
    """Four digits behind the point, or four digits in all; empty for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def as_text(found: Comparison, most: int) -> list[str]:
    """Lines for a terminal."""
    header, rows, left = cells(found, most)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in [header, *rows]:
        padded = [
            cell.ljust(width) if place < left or place == len(row) - 1 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    if len(found.groups) > most:
        lines.append(f"and {len(found.groups) - most:,} more; --format csv has all")
    return lines


def as_csv(found: Comparison) -> str:
    """All rows with full precision and full names."""
    out = io.StringIO()
    rows = found.rows()
    writer = csv.DictWriter(out, list(rows[0]) if rows else list(STATISTICS), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(key, value) for key, value in row.items()})
    return out.getvalue()


def _plain(key: str, value: Any) -> Any:
    if value is None and key in (*STATISTICS, "run"):
        return ""
    return value if isinstance(value, float) else printable(shown(value))


def as_markdown(found: Comparison, most: int | None = None, links: Mapping[str, str] | None = None) -> str:
    """A table of GitHub's Markdown with the first `most` rows; `links`: by the name of a run."""
    header, rows, left = cells(found, most)
    named = [[*row[:-1], (links or {}).get(row[-1], row[-1])] for row in rows]
    lines = [header, ["---" if place < left else "---:" for place in range(len(header))], *named]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def as_latex(found: Comparison) -> str:
    """A table for the package booktabs."""
    header, rows, left = cells(found)
    columns = "l" * left + "r" * (len(header) - left - 1) + "l"
    head, *body = (" & ".join(map(_tex, row)) + r" \\" for row in [header, *rows])
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"])


def _tex(text: str) -> str:
    return "".join(LATEX.get(each, each) for each in text)


def as_html(found: Comparison, lines: Sequence[str] = ()) -> str:
    """A table with the lines of the verdict and the notes below it."""
    header, rows, left = cells(found)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        f"<tr>{''.join(_td(cell, place >= left) for place, cell in enumerate(row))}</tr>" for row in rows
    )
    below = "".join(f"\n<p>{escape(printable(line))}</p>" for line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{below}"


def _td(text: str, right: bool) -> str:
    return f'<td style="text-align: right">{escape(text)}</td>' if right else f"<td>{escape(text)}</td>"
