"""Latency of one image and images per second of the exported CNN: ONNX Runtime, its int8 file and torch's program,
against the same model in eager torch.

    python benchmarks/export.py [--threads 2] [--rounds 15]

A run of digits_cnn (two epochs) is trained and exported in a temporary folder, then all four answer the same uint8
images in turns, in one process, on the CPU. Equality: probabilities within 1e-5 of eager torch's over 256 images (int8:
the same class for at least 97 of 100).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 64


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--rounds", type=int, default=15)
    asked = words.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for line in (
            ["train", "digits_cnn", "trainer.max_epochs=2", "trainer=cpu", "tracking=none"],
            ["export", "latest", "--quantize", "int8"],
            ["export", "latest", "--format", "torch"],
        ):
            subprocess.run([sys.executable, "-m", "regente", *line], check=True, stdout=subprocess.DEVNULL)
        compare(Path(folder), asked.threads, asked.rounds)


def compare(project: Path, threads: int, rounds: int) -> None:
    import torch

    from regente.inference.export_formats import onnx_runtime, samples
    from regente.inference.predictor import load_run
    from regente.jobs.runs import find
    from regente.training.performance import channels_last

    torch.set_num_threads(threads)
    run = find("latest", project)
    folder, loaded = run.job.path / "export", load_run(run)
    seen = samples(loaded, "val", 256)
    program = torch.export.load(folder / "model.pt2").module()
    asked = {
        "eager torch": channels_last(loaded.predictor),
        "torch.export (.pt2)": program,
        "ONNX Runtime": onnx_runtime(folder / "model.onnx"),
        "ONNX Runtime, int8": onnx_runtime(folder / "model-int8.onnx"),
    }
    took: dict[str, dict[int, list[float]]] = {name: {1: [], BATCH: []} for name in asked}
    with torch.inference_mode():
        for name, ask in asked.items():
            answers = ask(seen.x)
            away = float((answers - seen.output).abs().max())
            same = float((answers.argmax(1) == seen.output.argmax(1)).float().mean())
            assert same >= 0.97 if "int8" in name else away <= 1e-5, (name, away, same)
            print(f"{name}: at most {away:.2g} away, the same class for {same:.1%} of {len(seen.x)} images")
        for _ in range(rounds):
            for name, ask in asked.items():
                for number in (1, BATCH):
                    took[name][number].append(per_call(ask, seen.x[:number]))
    base = {number: statistics.median(took["eager torch"][number]) for number in (1, BATCH)}
    print(
        f"{'':<22}{'one image, us':>14}{'spread':>9}{'images/s':>12}{'spread':>9}{'x eager: one':>14}{'batch':>8}"
    )
    for name, each in took.items():
        one, many = (statistics.median(each[number]) for number in (1, BATCH))
        print(
            f"{name:<22}{one * 1e6:>14.0f}{spread(each[1]):>9.0%}{BATCH / many:>12,.0f}{spread(each[BATCH]):>9.0%}"
            f"{base[1] / one:>14.2f}{base[BATCH] / many:>8.2f}"
        )
    print(f"n = {rounds} rounds of 20 calls, medians; spread: (largest - least) / median; {threads} threads")


def per_call(ask: object, x: object, calls: int = 20) -> float:
    ask(x)  # type: ignore[operator]
    begun = time.perf_counter()
    for _ in range(calls):
        ask(x)  # type: ignore[operator]
    return (time.perf_counter() - begun) / calls


def spread(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


if __name__ == "__main__":
    main()
