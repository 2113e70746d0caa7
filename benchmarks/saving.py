"""What a checkpoint costs: a state of 64 MB saved by Lightning's own way and by Regente's, one after the other.

    python benchmarks/saving.py [--rounds 20] [--megabytes 64]

Prints the median milliseconds until training goes on, and until the file is on the disk; both files load and are equal.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from regente.jobs.checkpoint_files import load
from regente.training.checkpoints.saving import SafeSaving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    state = {f"layer.{n}": torch.randn(262_144) for n in range(options.megabytes)}
    content = {"global_step": 1, "state_dict": state}
    theirs, ours = TorchCheckpointIO(), SafeSaving(print)
    times: dict[str, list[float]] = {
        "lightning": [],
        "regente, until it goes on": [],
        "regente, on the disk": [],
    }
    with TemporaryDirectory(dir=options.folder) as folder:
        a, b = Path(folder) / "a.ckpt", Path(folder) / "b.ckpt"
        ours.save_checkpoint(content, b)  # the first one is read again before training goes on
        for _ in range(options.rounds):
            begun = time.perf_counter()
            theirs.save_checkpoint(content, a)
            times["lightning"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            ours.save_checkpoint(content, b)
            times["regente, until it goes on"].append(time.perf_counter() - begun)
            ours.flush()
            times["regente, on the disk"].append(time.perf_counter() - begun)
        one, two = load(a)["state_dict"], load(b)["state_dict"]
        assert all(torch.equal(one[key], two[key]) for key in state)
    base = statistics.median(times["lightning"])
    for name, values in times.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"{name:<28}{1e3 * middle:8.1f} ms  ({1e3 * low:.1f} to {1e3 * high:.1f})  {middle / base:.2f}")


if __name__ == "__main__":
    main()
