"""A new head on a frozen network: twenty epochs with stored features, without them, on features that are there, in
bfloat16, as a sweep of sixteen heads, and as the tutorial's Keras program.

    python benchmarks/transfer.py --root FOLDER [--epochs 20] [--measured 3] [--resolution 128] [--threads 2]

FOLDER holds train/CLASS, val/CLASS and test/CLASS. ResNet-18 with random weights, batches of 32. Runs without stored
features, and Keras, are measured for --measured epochs and extrapolated to --epochs. Equality: the head's weights with
and without stored features to the bit, dropout in the head included; accuracies in bfloat16 within the spread of five
seeds. Memory: VGG16 at 224 pixels on a few photos, whose features take as much room to compute as those of many.
Keras is in the extra `bench`; without it, it is left out. Every run is a process of its own; seconds are the whole
process's, and in brackets those that the run itself counts, without importing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HEADS, SEEDS = 16, 5

KERAS = """
import os, sys, time, json
os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", ""
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
tf.config.threading.set_inter_op_parallelism_threads(1)
import keras
from keras import layers
root, side, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
read = lambda split: keras.utils.image_dataset_from_directory(
    f"{root}/{split}", label_mode="categorical", image_size=(side, side), batch_size=32, verbose=False)
val = "val" if os.path.isdir(f"{root}/val") else "validation"
train, val = read("train").cache(), read(val).cache()
base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(side, side, 3))
base.trainable = False
model = keras.Sequential([base, layers.Flatten(), layers.Dense(256, activation="relu"),
                          layers.Dense(len(os.listdir(f"{root}/train")), activation="softmax")])
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
begun = time.perf_counter()
model.fit(train, validation_data=val, epochs=epochs, verbose=0)
json.dump({"seconds": time.perf_counter() - begun}, open("keras.json", "w"))
"""


class Bench:
    """Runs in a folder of their own, with a cache of their own."""

    def __init__(self, folder: Path, root: str, resolution: int, threads: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "OMP_NUM_THREADS": threads, "XDG_CACHE_HOME": str(folder / "cache")}
        self.common = [f"data.root={root}", "model.weights=null", "trainer=cpu", "tracking=none"]
        self.size = [f"data.resolution={resolution}"]

    def process(self, *words: str) -> tuple[float, float]:
        """Wall seconds and peak megabytes of a process."""
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(words)[:200]} failed:\n{said[-3000:]}")
        return time.perf_counter() - begun, usage.ru_maxrss / 1024

    def run(self, experiment: str, *words: str) -> dict[str, Any]:
        """A run: its result, wall seconds `wall`, peak megabytes `peak`, and its last weights `head`."""
        import torch

        before = set(self.folder.glob("runs/*/*"))
        wall, peak = self.process("-m", "regente", "train", experiment, *self.common, *words)
        (job,) = set(self.folder.glob("runs/*/*")) - before
        result = json.loads((job / "result.json").read_text())
        head = torch.load(job / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        return {**result, "wall": wall, "peak": peak, "head": head}

    def forget(self) -> None:
        """Delete all stored features."""
        shutil.rmtree(self.folder / "cache/regente/features", ignore_errors=True)


def few(root: Path, folder: Path, number: int) -> Path:
    """A folder with links to the first photos of each class and split."""
    for split in root.iterdir():
        for name in split.iterdir():
            target = folder / split.name / name.name
            target.mkdir(parents=True)
            for photo in sorted(name.iterdir())[:number]:
                (target / photo.name).symlink_to(photo.resolve())
    return folder


def say(name: str, seconds: float, inside: float, base: float, note: str = "") -> None:
    """A line of the table."""
    print(
        f"{name:<44}{seconds:10,.1f} s [{inside:,.1f}] {base / seconds:9,.1f} times [{base / inside:,.1f}]  {note}",
        flush=True,
    )


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True, help="a folder of train/CLASS, val/CLASS and test/CLASS")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--measured", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--backbone", default="resnet18")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), str(Path(asked.root).resolve()), asked.resolution, asked.threads)
        words = [*bench.size, f"model.backbone={asked.backbone}", "model.dropout=0.2"]
        epochs = f"trainer.max_epochs={asked.epochs}"
        bench.run("photos_resnet18", *words, "trainer.max_epochs=1")  # decodes the photos
        base = alone(bench, words, epochs, asked)
        heads(bench, [*words[:2], epochs], base)
        accuracies(bench, [*words, epochs])
        memory(bench, Path(asked.root), Path(folder))
        if find_spec("keras"):
            peers(bench, asked)
    print(f"{os.cpu_count()} cores, {asked.threads} threads, load {os.getloadavg()[0]:.1f} at the end")


def alone(bench: Bench, words: list[str], epochs: str, asked: argparse.Namespace) -> float:
    """One head; returns the seconds that it takes without stored features."""
    import torch

    measured = f"trainer.max_epochs={asked.measured}"
    without = bench.run("photos_resnet18", *words, measured, "model.feature_bank=null")
    base = without["seconds"] * asked.epochs / asked.measured
    say(f"without, {asked.measured} epochs measured", base, base, base, "extrapolated")
    bench.forget()
    cold = bench.run("photos_resnet18", *words, epochs)
    say("with, features computed", cold["wall"], cold["seconds"], base)
    stored = bench.run("photos_resnet18", *words, epochs)
    say("with, features that are there", stored["wall"], stored["seconds"], base)
    half = bench.run("photos_resnet18", *words, epochs, "model.feature_bank.precision=bf16")
    say("with, features computed in bfloat16", half["wall"], half["seconds"], base)
    same = bench.run("photos_resnet18", *words, measured)["head"]
    for one, other in ((without["head"], same), (cold["head"], stored["head"])):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items()), "the heads differ"
    print("heads with and without stored features: equal to the bit")
    return base


def heads(bench: Bench, words: list[str], base: float) -> None:
    """Sixteen heads against sixteen runs without stored features; each is the one that is trained alone."""
    import torch

    words, threads = [*words, "model.feature_bank.precision=bf16"], bench.env["OMP_NUM_THREADS"]
    for name, forget in (("features computed in bfloat16", True), ("features that are there", False)):
        if forget:
            bench.forget()
        sweep = ["-m", "regente", "train", "head_sweep", *bench.common, *words, "rerun=true"]
        wall, _ = bench.process(*sweep)
        say(f"head_sweep, {name}", wall, wall, HEADS * base, f"of {HEADS} runs without, extrapolated")
    bench.env["OMP_NUM_THREADS"] = "1"  # as on a slot: another number adds up in another order
    jobs = sorted(bench.folder.glob("runs/head_sweep/sweep-*/*/job.json"))[-HEADS:]
    for job in jobs:
        head = torch.load(job.parent / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        own = json.loads(job.read_text())["overrides"]
        alone = bench.run("head_sweep", "hydra.mode=RUN", *own)["head"]
        assert head.keys() == alone.keys()
        assert all(torch.equal(value, alone[key]) for key, value in head.items()), f"{own}: another head"
    bench.env["OMP_NUM_THREADS"] = threads
    print(
        f"{len(jobs)} heads of the sweep: each equal to the bit to the one that is trained alone", flush=True
    )


def accuracies(bench: Bench, words: list[str]) -> None:
    """Test accuracies of five seeds, on features of either precision."""
    found: dict[str, list[float]] = {}
    for precision in ("32", "bf16"):
        for seed in range(SEEDS):
            more = [f"seed={seed}", "model.seed=0", f"model.feature_bank.precision={precision}"]
            result = bench.run("photos_resnet18", *words, *more)
            found.setdefault(precision, []).append(result["metrics"]["test/acc"])
    for precision, values in found.items():
        print(
            f"test accuracy, {precision}: {statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}, n {SEEDS}"
        )
    spread = max(statistics.stdev(values) for values in found.values())
    gap = abs(statistics.mean(found["32"]) - statistics.mean(found["bf16"]))
    assert gap <= 2 * spread + 0.005, f"bfloat16 is {gap:.4f} away"


def memory(bench: Bench, root: Path, folder: Path) -> None:
    """Peak memory of VGG16 at 224 pixels, one epoch on a few photos."""
    small = few(root, folder / "few", 8)
    words = [f"data.root={small}", "trainer.max_epochs=1"]
    for name, more in (("with", []), ("with, there", []), ("without", ["model.feature_bank=null"])):
        result = bench.run("photos_vgg16", *words, *more)
        print(f"VGG16 at 224 pixels, {name} stored features: peak {result['peak']:,.0f} MB", flush=True)


def peers(bench: Bench, asked: argparse.Namespace) -> None:
    """The tutorial's Keras program against photos_vgg16, at the resolution of the others."""
    bench.process("-c", KERAS, asked.root, str(asked.resolution), "1")
    base = json.loads((bench.folder / "keras.json").read_text())["seconds"] * asked.epochs
    say("VGG16, Keras, 1 epoch measured", base, base, base, "extrapolated")
    ours = bench.run("photos_vgg16", *bench.size, f"trainer.max_epochs={asked.epochs}")
    say("VGG16, photos_vgg16", ours["wall"], ours["seconds"], base)


if __name__ == "__main__":
    main()
