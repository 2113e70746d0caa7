"""A sweep whose driver is killed with SIGKILL at random times, the same words again each time until it ends.

Prints how many jobs were done twice, lost or overwritten (0 of each is right), and the own time of a repeat that finds
nothing to do. A job is done twice when two attempts of it have a result; overwritten when a result changes later.

    python benchmarks/sweep_kills.py [--kills 10] [--jobs 12] [--seed 0] [--between 2 12] [-- hydra/launcher=ray ...]
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

REGENTE = str(Path(sys.executable).with_name("regente"))


def results(folder: Path) -> dict[Path, str]:
    """Every result there is, and the hash of it."""
    files = folder.glob("runs/*/sweep-*/*/result.json")
    return {file.relative_to(folder): sha256(file.read_bytes()).hexdigest() for file in files}


def main(kills: int, jobs: int, seed: int, between: tuple[float, float], more: list[str]) -> bool:
    """Whether all was as it should be."""
    draw = random.Random(seed)
    command = [REGENTE, "train", "digits_mlp", "trainer.max_epochs=20", "tracking.log_model=none", *more]
    command += ["-m", f"seed=range({jobs})"]
    seen: dict[Path, str] = {}
    overwritten = done_kills = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        log = (folder / "log").open("wb")
        while True:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
            try:
                wait = draw.uniform(*between) if done_kills < kills else None
                code = process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done_kills += 1
                print(f"kill {done_kills} after {wait:.1f} s: {len(results(folder))} results")
                now = results(folder)
                overwritten += sum(now.get(path) != digest for path, digest in seen.items())
                seen = now
                continue
            break
        now = results(folder)
        overwritten += sum(now.get(path) != digest for path, digest in seen.items())
        states = [json.loads(file.read_text()) for file in folder.glob("runs/*/sweep-*/states/*.json")]
        twice = len(now) - len({path.parent.name.split("-")[0] for path in now})
        lost = jobs - sum(state["state"] == "done" for state in states)
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        again = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        unchanged = results(folder) == now and "started" not in again.stdout
        print((folder / "log").read_text()[-1500:] if code else "", end="")
    print(f"{done_kills} kills of the driver, {jobs} jobs, exit code {code} in the end")
    print(f"done twice {twice}, lost {lost}, overwritten {overwritten}")
    print(
        f"repeat with nothing to do: exit code {again.returncode}, {own:.2f} s CPU, {wall:.2f} s wall, unchanged {unchanged}"
    )
    return not (twice or lost or overwritten or code or again.returncode) and unchanged


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--between", type=float, nargs=2, default=(2.0, 12.0), metavar=("LEAST", "MOST"))
    parser.add_argument("more", nargs="*", help="further words of the command line")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(not main(options.kills, options.jobs, options.seed, tuple(options.between), options.more))
