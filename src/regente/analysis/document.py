"""A document of headings, paragraphs, tables and figures, as HTML, Markdown or LaTeX. All of its text is escaped here."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from regente.analysis.formats import latex
from regente.jobs.streams import markdown, plain
from regente.tracking.svg import clean

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a report runs no script and loads nothing
NUMBER = re.compile(r"[-+~]?[\d,.]+(e[-+]?\d+)?( ?[%a-zA-Z/]*)?( (±|to) [-+]?[\d.,e]+)?|-|")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Code:
    """Lines as they are typed or printed."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell names its row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers alone."""
        return all(NUMBER.fullmatch(row[column]) for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A drawing, see svg.py, with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Figures:
    """Drawings side by side, with the names of their lines by colour."""

    figures: Sequence[Figure]
    legend: Sequence[str] = ()
    wide: bool = False


Block = Text | Code | Table | Figures


@dataclass
class Section:
    """A heading and what is below it."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    """A report."""

    title: str
    sections: list[Section]


def to_html(document: Document) -> str:
    """One self-contained page: no script, no other file."""
    style = files("regente.analysis").joinpath("report.css").read_text(encoding="utf-8")
    body = "".join(
        f"<section><h2>{clean(each.title)}</h2>{''.join(map(_html, each.blocks))}</section>"
        for each in document.sections
    )
    title = clean(document.title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>"
        f"<body><main><h1>{title}</h1>{body}</main></body></html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{clean(block.words)}</p>"
    if isinstance(block, Code):
        return f"<pre>{chr(10).join(map(clean, block.lines))}</pre>"
    if isinstance(block, Table):
        return _html_table(block)
    legend = "".join(
        f'<li><svg viewBox="0 0 32 10" aria-hidden="true"><polyline class="curve c{place % 8}" points="0,5 32,5"/></svg>'
        f"{clean(name)}</li>"
        for place, name in enumerate(block.legend)
    )
    drawn = "".join(
        f"<figure>{each.svg}<figcaption>{clean(each.caption)}</figcaption></figure>" for each in block.figures
    )
    scrolls = ' wide" tabindex="0" role="region" aria-label="wide figure' if block.wide else ""
    return f'{f"<ul class=legend>{legend}</ul>" if legend else ""}<div class="figures{scrolls}">{drawn}</div>'


def _html_table(table: Table) -> str:
    kinds = [' class="number"' if table.is_number(column) else "" for column in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{kind}>{clean(name)}</th>' for kind, name in zip(kinds, table.header, strict=True)
    )
    rows = []
    for first, *rest in table.rows:
        cells = "".join(f"<td{kind}>{clean(cell)}</td>" for kind, cell in zip(kinds[1:], rest, strict=True))
        rows.append(f'<tr><th scope="row"{kinds[0]}>{clean(first)}</th>{cells}</tr>')
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{clean(table.caption)}"><table>'
        f"<caption>{clean(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def to_markdown(document: Document) -> str:
    """Headings, paragraphs and tables of GitHub's Markdown; a figure is its caption."""
    parts = [f"# {markdown(document.title)}"]
    for section in document.sections:
        parts += [f"## {markdown(section.title)}", *(_markdown(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return markdown(block.words)
    if isinstance(block, Code):  # indented: no text can end it
        return "\n".join(f"    {plain(line)}" for line in block.lines)
    if isinstance(block, Table):
        rules = [" ---: " if block.is_number(column) else " --- " for column in range(len(block.header))]
        rows = ["| " + " | ".join(map(markdown, row)) + " |" for row in (block.header, *block.rows)]
        return "\n".join([f"{markdown(block.caption)}\n", rows[0], f"|{'|'.join(rules)}|", *rows[1:]])
    return "\n\n".join(f"Figure (in the HTML report): {markdown(each.caption)}" for each in block.figures)


def to_latex(document: Document) -> str:
    """A document of the class article, with the package booktabs; a figure is its caption."""
    parts = [
        r"\documentclass{article}", r"\usepackage[T1]{fontenc}", r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs,longtable}", r"\usepackage[margin=2cm]{geometry}",
        rf"\title{{{latex(document.title)}}}", r"\date{}", r"\begin{document}", r"\maketitle",
    ]  # fmt: skip
    for section in document.sections:
        parts += [rf"\section{{{latex(section.title)}}}", *(_latex(block) for block in section.blocks)]
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _latex(block: Block) -> str:
    if isinstance(block, Text):
        return latex(block.words) + "\n"
    if isinstance(block, Code):
        lines = "\\\\\n".join(rf"\texttt{{{latex(line)}}}" for line in block.lines)
        return f"\\begin{{flushleft}}\n{lines}\n\\end{{flushleft}}"
    if isinstance(block, Table):
        columns = "".join("r" if block.is_number(column) else "l" for column in range(len(block.header)))
        rows = [" & ".join(map(latex, row)) + r" \\" for row in (block.header, *block.rows)]
        caption = rf"\multicolumn{{{len(columns)}}}{{l}}{{{latex(block.caption)}}}\\"
        head = "\n".join([rf"\begin{{longtable}}{{{columns}}}", caption, r"\toprule"])
        return "\n".join([head, rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{longtable}"])
    return "\n".join(
        rf"\emph{{Figure (in the HTML report): {latex(each.caption)}}}" for each in block.figures
    )


FORMATS: dict[str, Callable[[Document], str]] = {".html": to_html, ".md": to_markdown, ".tex": to_latex}
