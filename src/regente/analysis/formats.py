"""A comparison as a table for people: text, CSV, Markdown, LaTeX and HTML."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from regente.analysis.comparison import STATISTICS, Comparison
from regente.analysis.groups import MISSING, Group, shown
from regente.jobs.streams import markdown, plain, printable

FORMATS = ("table", "csv", "json", "md", "latex", "html")
LATEX = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{each: f"{{{each}}}" for each in "[*"},  # which would belong to the \\ that ends the row before
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
}
FORMULA = tuple("=+-@\t\r")  # a spreadsheet runs a cell that begins with one of them


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
    return [*map(plain, header)], [[*map(plain, row)] for row in rows], len(found.names)


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
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_no_formula, rows[0] if rows else STATISTICS))
    for row in rows:
        writer.writerow(_cell(key, value) for key, value in row.items())
    return out.getvalue()


def _cell(key: str, value: Any) -> Any:
    if value is None and key in (*STATISTICS, "run"):
        return ""
    if isinstance(value, str):
        return _no_formula(value)
    return value if isinstance(value, float) else shown(value)


def _no_formula(text: str) -> str:
    """Text of a run as text of a spreadsheet."""
    return "'" * (text.startswith(FORMULA) and text != MISSING) + printable(text)


def as_markdown(found: Comparison, most: int | None = None, links: Mapping[str, str] | None = None) -> str:
    """A table of GitHub's Markdown with the first `most` rows; `links`: in Markdown, by the name of a run."""
    header, rows, left = cells(found, most)
    named = [[*map(markdown, row[:-1]), (links or {}).get(row[-1]) or markdown(row[-1])] for row in rows]
    rule = ["---" if place < left else "---:" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[*map(markdown, header)], rule, *named])


def as_latex(found: Comparison) -> str:
    """A table for the package booktabs."""
    header, rows, left = cells(found)
    columns = "l" * left + "r" * (len(header) - left - 1) + "l"
    head, *body = (" & ".join(map(latex, row)) + r" \\" for row in [header, *rows])
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"])


def latex(words: str) -> str:
    """Text of a run for LaTeX, without the meaning of any of its characters."""
    return "".join(LATEX.get(each, each) for each in plain(words))


def as_html(found: Comparison, lines: Sequence[str] = ()) -> str:
    """A table with the lines of the verdict and the notes below it."""
    header, rows, left = cells(found)
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        f"<tr>{''.join(_td(cell, place >= left) for place, cell in enumerate(row))}</tr>" for row in rows
    )
    below = "".join(f"\n<p>{escape(plain(line))}</p>" for line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{below}"


def _td(text: str, right: bool) -> str:
    return f'<td style="text-align: right">{escape(text)}</td>' if right else f"<td>{escape(text)}</td>"
