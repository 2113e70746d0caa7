"""What a job of a sweep costs to start, and how much of a sweep's wall time is training.

1. Start-up: CPU seconds of a job from its free slot to the first optimizer step, forked from the warm server against
   `python -m regente.sweeps.slot JOB_DIR`, the same job directories; equality: the first loss of both, to the bit.
2. Share: `--jobs` digits_cnn jobs on two slots, recorded in MLflow; the share of slots times wall time, from the first
   job's start to the last one's end, that lies between the start and the end of fit.

    python benchmarks/sweep.py [--rounds 5] [--jobs 32] [--epochs 10]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REGENTE = str(Path(sys.executable).with_name("regente"))
MARK = """
import json, resource, time
from pytorch_lightning import Callback

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

class Mark(Callback):
    def on_fit_start(self, trainer, module):
        self.begun = time.time()

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.current_epoch == 0 and index == 0:
            loss = float(outputs["loss"])
            with open(trainer.default_root_dir + "/first.json", "w") as file:
                json.dump({"time": time.time(), "cpu": cpu(), "loss": loss}, file)

    def on_fit_end(self, trainer, module):
        with open(trainer.default_root_dir + "/fit.json", "w") as file:
            json.dump([self.begun, time.time()], file)
"""
MARKED = "+callbacks.mark={_target_: mark.Mark}"


def sweep(folder: Path, *words: str) -> list[Path]:
    """Run a sweep in a folder; its job directories, those started first first."""
    (folder / "mark.py").write_text(MARK)
    command = [REGENTE, "train", "digits_cnn", MARKED, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = [file.parent for file in folder.glob("runs/*/sweep-*/*/job.json")]
    return sorted(found, key=lambda path: process_started(path))


def process_started(path: Path) -> float:
    """When a job's process was there, in seconds since the epoch."""
    return (path / "process.json").stat().st_mtime


def startup(rounds: int) -> None:
    """CPU seconds from the free slot to the first optimizer step, and the wall time of the same."""
    words = [
        "tracking=none",
        "trainer.max_epochs=1",
        "hydra.launcher.jobs=1",
        "-m",
        f"seed=range({rounds + 1})",
    ]
    warm, cold = [], []
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        jobs = sweep(Path(first), *words)[2:]  # the first ones wait for the server
        fresh = {job.name: job for job in sweep(Path(second), *words, "hydra.launcher.fork_server=false")}
        for job in jobs:
            ours, theirs = (json.loads((path / "first.json").read_text()) for path in (job, fresh[job.name]))
            assert ours["loss"] == theirs["loss"], f"{job.name}: {ours['loss']} != {theirs['loss']}"
            warm.append((ours["cpu"], ours["time"] - (job / "job.json").stat().st_mtime))
            cold.append((theirs["cpu"], theirs["time"] - (fresh[job.name] / "job.json").stat().st_mtime))
    for name, rows in (("warm", warm), ("fresh process", cold)):
        cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
        spread = f"{min(row[0] for row in rows):.3f} to {max(row[0] for row in rows):.3f}"
        print(f"{name:<14} {cpu:.3f} s CPU ({spread}), {wall:.2f} s wall, n={len(rows)}")
    ratio = statistics.median(row[0] for row in cold) / statistics.median(row[0] for row in warm)
    print(f"ratio {ratio:.0f} in CPU; first losses equal to the bit")


def share(jobs: int, epochs: int) -> None:
    """How much of two slots' time is spent in fit."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.time()
        words = [f"trainer.max_epochs={epochs}", "tracking.log_model=none", "hydra.launcher.jobs=2"]
        done = sweep(Path(folder), *words, "-m", f"seed=range({jobs})")
        fits = [json.loads((job / "fit.json").read_text()) for job in done]
        first = min(process_started(job) for job in done)
        last = max((job / "result.json").stat().st_mtime for job in done)
        training = sum(end - start for start, end in fits)
        whole = time.time() - begun
    print(
        f"{jobs} digits jobs of {epochs} epochs on 2 slots: {training / (2 * (last - first)):.2f} of the slots' time is fit; "
        f"{training / (2 * whole):.2f} with the server's imports and MLflow's closing ({whole:.1f} s in all)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    startup(options.rounds)
    share(options.jobs, options.epochs)
