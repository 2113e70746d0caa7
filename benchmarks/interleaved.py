"""What the side-by-side programs share: each way in a process of its own, one after the other, round by round."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = dict[str, list[dict[str, Any]]]


def interleave(
    ways: Mapping[str, Sequence[str]], rounds: int, env: Mapping[str, str], files: Mapping[str, str]
) -> Rows:
    """Run each way's Python arguments `rounds` times, interleaved; each leaves `out.json` in its working directory.

    `files` are modules that the ways may import.
    """
    found: Rows = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        for number in range(rounds):
            order = list(ways.items()) if number % 2 == 0 else list(ways.items())[::-1]
            for name, words in order:
                (Path(folder) / "out.json").unlink(missing_ok=True)
                done = subprocess.run(
                    [sys.executable, *words],
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": folder, **env},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
                found[name].append(json.loads((Path(folder) / "out.json").read_text()))
    return found


def table(found: Rows, key: str, unit: str, against: str) -> None:
    """Print median, range and the ratio to one of the ways."""
    base = statistics.median(row[key] for row in found[against])
    for name, rows in found.items():
        values = sorted(row[key] for row in rows)
        middle = statistics.median(values)
        print(
            f"{name:<28}{middle:12,.0f} {unit} ({values[0]:,.0f} to {values[-1]:,.0f}), {middle / base:.2f} times {against}"
        )
    print(
        f"{len(next(iter(found.values())))} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    )
