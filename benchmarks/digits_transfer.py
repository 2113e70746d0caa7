"""What the digits 0 to 4 teach about 5 to 9: digits_transfer against digits_scratch, ten images a class, five seeds.

    python benchmarks/digits_transfer.py

For each seed a CNN is trained on the digits 0 to 4, then a head on it, then the same CNN from scratch; test accuracy.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SEEDS = 5


def run(folder: str, *words: str) -> Path:
    """A run; its job directory."""
    before = set(Path(folder).glob("runs/*/*"))
    command = [sys.executable, "-m", "regente", "train", *words, "tracking=none", "trainer=cpu"]
    env = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    (job,) = set(Path(folder).glob("runs/*/*")) - before
    return job


def main() -> None:
    """Train, compare and print."""
    found: dict[str, list[float]] = {"digits_transfer": [], "digits_scratch": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            backbone = run(folder, "digits_pretrain", f"seed={seed}").relative_to(folder)
            for name, more in (
                ("digits_transfer", [f"model.backbone=run:{backbone}"]),
                ("digits_scratch", []),
            ):
                job = run(folder, name, f"seed={seed}", *more)
                metrics = json.loads((job / "result.json").read_text())["metrics"]
                found[name].append(metrics["test/acc"])
    for name, values in found.items():
        spread = statistics.stdev(values)
        print(
            f"{name:<16} {statistics.mean(values):.4f} +- {spread:.4f}, n {SEEDS}: {', '.join(f'{v:.4f}' for v in values)}"
        )


if __name__ == "__main__":
    main()
