"""Real kills of real runs: is every run resumable, and does it end as one that was never disturbed?

    python benchmarks/kills.py saves [--trials 100] [--folder DIR]    killed at a random moment of a save
    python benchmarks/kills.py runs [--seeds 5] [--kills 6]           killed at random, again and again, steps compared

`TMPDIR` may be on another file system: nothing is written there.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from regente.jobs import checkpoint_files
from regente.training.checkpoints.writing import remove_drafts

WRITER = """
import sys, torch
from pathlib import Path
from regente.training.checkpoints.saving import SafeSaving
saving, folder, step = SafeSaving(print), Path(sys.argv[1]), int(sys.argv[2])
weights = torch.randn(4_000_000)
while True:
    step += 1
    path = folder / f"step-{step:08d}.ckpt"
    older = sorted(folder.glob("step-*.ckpt"))
    saving.save_checkpoint({"global_step": step, "w": weights}, path)
    for file in older[:-1]:
        saving.remove_checkpoint(file)
    saving.flush()
    print(step, flush=True)
"""
WORDS = [
    "digits_mlp",
    "trainer.max_epochs=3",
    "model.dropout=0.2",
    "tracking=none",
    "callbacks.resume.every_minutes=0",
]


def saves(trials: int, home: Path) -> None:
    """Kill a program that does nothing but save; what was acknowledged must be there, and whole."""
    resumable = lost = left = 0
    with TemporaryDirectory(dir=home) as folder:
        last = 0
        for _ in range(trials):
            command = [sys.executable, "-c", WRITER, folder, str(last)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            last = int(process.stdout.readline())
            time.sleep(random.uniform(0, 0.3))
            process.kill()
            last = max([last, *map(int, process.stdout.read().split())])
            remove_drafts(Path(folder))
            left += len(list(Path(folder).glob(".*")))
            newest, _ = checkpoint_files.newest_undamaged(Path(folder))
            resumable += newest is not None
            lost += newest is None or checkpoint_files.step_and_stage(newest)[0] < last
    print(f"{resumable} of {trials} resumable, {lost} acknowledged lost, {left} left over")


def regente(*words: str, folder: str, kill_after: float | None = None) -> None:
    command = [sys.executable, "-m", "regente", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def recorded(job: Path) -> dict[str, float]:
    """The metrics of each step, without what the clock measures."""
    lines = [json.loads(line) for line in (job / "journal.jsonl").read_text().splitlines()]
    return {
        f"{key} {line['step']}": value
        for line in lines
        if line["kind"] == "metrics"
        for key, value in line["values"].items()
        if key != "train/samples_per_second"
    }


def runs(seeds: int, kills: int) -> None:
    """Kill a run again and again at random moments after its start-up, then let it end; compare every step."""
    for seed in range(seeds):
        with TemporaryDirectory() as folder:
            words = ["train", *WORDS, f"seed={seed}", "trainer.log_every_n_steps=1"]
            regente(*words, folder=folder)
            (undisturbed,) = Path(folder).glob("runs/digits_mlp/2*")
            startup = float(os.environ.get("STARTUP", "6"))
            regente(*words, folder=folder, kill_after=startup + random.uniform(0, 1))
            (job,) = set(Path(folder).glob("runs/digits_mlp/2*")) - {undisturbed}
            for _ in range(kills - 1):
                regente("resume", str(job), folder=folder, kill_after=startup + random.uniform(0, 1))
            regente("resume", str(job), folder=folder)
            a, b = recorded(undisturbed), recorded(job)
            steps = [key for key in a if key.startswith("train/loss ")]
            same = sum(a[key] == b.get(key) for key in steps)
            print(f"seed {seed}: {same} of {len(steps)} steps equal, all metrics equal: {a == b}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["saves", "runs"])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    random.seed(0)
    if options.what == "saves":
        saves(options.trials, options.folder)
    else:
        runs(options.seeds, options.kills)


if __name__ == "__main__":
    main()
