"""Writes the report on runs to a file; Chromium prints the PDF."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from regente.analysis.comparison import Comparison, compare
from regente.errors import ConfigError, MachineError, Problem

KINDS = (".html", ".md", ".tex", ".pdf")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--no-pdf-header-footer",
)
PATIENCE = 120  # seconds for the browser


def write(names: Sequence[str], project: Path, metric: str | None, out: Path) -> None:
    """Write a report on the runs of these names.

    Raises:
        ConfigError: when the file cannot be written, or has another ending.
        MachineError: when there is no browser to print a PDF.
        TrackingError: when a name matches nothing.
    """
    suffix = out.suffix.lower()
    if suffix not in KINDS:
        raise ConfigError(
            [Problem(f"--out {out}", "unknown kind; use FILE.html, FILE.md, FILE.tex or FILE.pdf")]
        )
    if not out.parent.is_dir():
        raise ConfigError([Problem(f"--out {out}", f"there is no folder {out.parent}; create it first")])
    browser = find_browser(out) if suffix == ".pdf" else ""
    found = compare(names, project, metric=metric)
    from regente.analysis.document import FORMATS  # imports numpy
    from regente.analysis.report import make_report

    document = make_report(found)
    try:
        if browser:
            print_pdf(browser, FORMATS[".html"](document), out)
        else:
            out.write_text(FORMATS[suffix](document), encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(f"--out {out}", f"cannot be written ({error.strerror})")]) from error


def write_sweep_report(found: Comparison, sweep: Path) -> Path:
    """`report.html` in the directory of a sweep that has ended."""
    from regente.analysis.document import to_html
    from regente.analysis.report import make_report

    file = sweep / "report.html"
    file.write_text(to_html(make_report(found, fast=True)), encoding="utf-8")
    return file


def find_browser(out: Path) -> str:
    """A browser that prints pages.

    Raises:
        MachineError: when there is none.
    """
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    html = out.with_suffix(".html")
    what = f"needs Chromium or Chrome; install one, or use --out {html} and print it in your browser"
    raise MachineError(f"--out {out}: {what}")


def print_pdf(browser: str, page: str, out: Path) -> None:
    """Print a page.

    Raises:
        MachineError: when the browser prints nothing.
    """
    with TemporaryDirectory() as folder:
        file, printed = Path(folder, "report.html"), Path(folder, "report.pdf")
        file.write_text(page, encoding="utf-8")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root with a sandbox
        command = [
            browser,
            *FLAGS,
            *sandbox,
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={printed}",
        ]
        try:
            ended = subprocess.run(
                [*command, file.as_uri()], capture_output=True, text=True, errors="replace", timeout=PATIENCE
            )
        except subprocess.TimeoutExpired as error:
            raise MachineError(
                f"{browser} has not printed {out} in {PATIENCE} s; use --out FILE.html"
            ) from error
        if not printed.is_file():
            last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise MachineError(f"{browser} cannot print {out}: {last[:200]}; use --out FILE.html")
        shutil.move(printed, out)
