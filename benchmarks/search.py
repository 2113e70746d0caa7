"""A search that is killed twice ends with as many trials as it was asked for; and what pruning saves to the same best.

`regente train -m hydra/sweeper=optuna` itself, in a folder of its own. First: killed with SIGKILL after a third and
after two thirds of its trials, started again with the same words; equality: as many complete trials as asked for, no
parameters twice. Then the same search without a pruner and with each, the same seed, rounds interleaved; equality:
the best validation accuracy within 1 % of that without. `--trials 6 --epochs 3 --rounds 1` tries it out.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from regente.sweeps.trial_storage import open_storage

PRUNERS = ("none", "median", "asha", "hyperband")
SPACE = ("optimizer.lr=tag(log,interval(1e-5,1e-1))", "model.dropout=interval(0,0.6)")


def start(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """The search as one types it; its output goes to a file."""
    command = [
        sys.executable,
        "-m",
        "regente",
        "train",
        "digits_mlp",
        "-m",
        "hydra/sweeper=optuna",
        "tracking=none",
    ]
    with (folder / "output.txt").open("ab") as file:
        return subprocess.Popen([*command, *SPACE, *words], cwd=folder, stdout=file, stderr=file)


def results(folder: Path) -> list[dict[str, Any]]:
    """What the jobs that are done have left."""
    return [json.loads(file.read_text()) for file in folder.glob("runs/digits_mlp/sweep-*/*/result.json")]


def killed(trials: int) -> None:
    """Kill a search twice, and count what there is at its end."""
    with tempfile.TemporaryDirectory() as name:
        folder, words = Path(name), (f"hydra.sweeper.n_trials={trials}", "trainer.max_epochs=1")
        for share in (1 / 3, 2 / 3):
            process = start(folder, *words)
            while len(results(folder)) < share * trials and process.poll() is None:
                time.sleep(0.05)
            assert process.poll() is None, (folder / "output.txt").read_text()[-2000:]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        process = start(folder, *words)
        code = process.wait()
        assert code == 0, (folder / "output.txt").read_text()[-2000:]
        (journal,) = folder.glob("runs/digits_mlp/sweep-*/trials.jsonl")
        study = optuna.load_study(study_name="digits_mlp", storage=open_storage(f"journal:{journal}"))
        complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
        distinct = {json.dumps(trial.params, sort_keys=True) for trial in complete}
        repeated = len(results(folder)) - len(complete)
        print(f"asked for {trials} trials, killed twice: {len(complete)} complete, {len(distinct)} distinct,")
        print(
            f"  {len(study.trials) - len(complete)} told as failed and asked again, {repeated} jobs done twice"
        )
        assert len(complete) == len(distinct) == trials and repeated == 0


def pruned(pruner: str, seed: int, trials: int, epochs: int) -> dict[str, float]:
    """One search: its seconds, the epochs of all its jobs, how many were pruned and the best accuracy."""
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.perf_counter()
        words = (
            f"hydra.sweeper.n_trials={trials}",
            f"trainer.max_epochs={epochs}",
            f"hydra/sweeper/pruner={pruner}",
        )
        process = start(folder, *words, f"hydra.sweeper.sampler.seed={seed}", "hydra.sweeper.n_jobs=1")
        assert process.wait() == 0, (folder / "output.txt").read_text()[-2000:]
        seconds, found = time.perf_counter() - begun, results(folder)
        return {
            "seconds": seconds,
            "epochs": sum(each["epochs"] for each in found),
            "pruned": sum(each["pruned"] for each in found),
            "best": max(each["metrics"]["val/acc"] for each in found),
        }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(words)
    killed(given.trials)
    rows: dict[str, list[dict[str, float]]] = {pruner: [] for pruner in PRUNERS}
    for seed in range(given.rounds):
        for pruner in PRUNERS if seed % 2 == 0 else PRUNERS[::-1]:
            rows[pruner].append(pruned(pruner, seed, given.trials, given.epochs))
    print(f"\n{given.trials} trials of {given.epochs} epochs, median of {given.rounds}; time against none")
    for pruner, found in rows.items():
        median = {key: statistics.median(row[key] for row in found) for key in found[0]}
        ratios = [mine["seconds"] / other["seconds"] for mine, other in zip(found, rows["none"], strict=True)]
        off = max(1 - mine["best"] / other["best"] for mine, other in zip(found, rows["none"], strict=True))
        print(
            f"{pruner:10} {median['seconds']:7.1f} s  x {statistics.median(ratios):.2f}  {median['epochs']:6.0f} epochs  "
            f"{median['pruned']:4.0f} pruned  best {median['best']:.4f}  off by {max(off, 0):.2%} at most"
        )
        assert off <= 0.01, f"{pruner} missed the best by {off:.2%}"


if __name__ == "__main__":
    main()
