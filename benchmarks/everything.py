"""A table: each shipped experiment that runs offline is trained, evaluated, asked, exported in each format, served, rerun.

    python benchmarks/everything.py [EXPERIMENT...] [--with OVERRIDE...]

It all happens in a temporary folder through the command line. Columns: whether `evaluate` gives the metrics of training
to the bit, how many samples `predict` answered, the largest difference of each exported file, the status of a request to
`serve`, and what `rerun --verify` says. Experiments whose data is not there are left out, and said to be.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

FORMATS = ("onnx", "torch", "safetensors")
NO_TRAINING = {"head_sweep", "digits_search"}  # sweeps
FIRST = {"digits_transfer": "digits_pretrain"}  # what an experiment's backbone is a run of
WAIT = 180  # seconds for the server


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("experiments", nargs="*")
    words.add_argument("--with", dest="overrides", nargs="*", default=[], help="for each training")
    asked = words.parse_args()
    from regente.config.discovery import experiment_files

    names = asked.experiments or [name for name in experiment_files() if name not in NO_TRAINING]
    head = ("experiment", "evaluate", "predict", *FORMATS, "serve", "rerun --verify")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            print("| " + " | ".join([name, *row(name, asked.overrides, Path(folder))]) + " |", flush=True)


def row(name: str, overrides: list[str], folder: Path) -> list[str]:
    if name in FIRST:
        regente(folder, "train", FIRST[name])
    trained = regente(folder, "train", name, *overrides)
    if trained.returncode:
        return [
            f"left out, exit code {trained.returncode}: {(trained.stderr.splitlines() or [''])[-1][:100]}"
        ]
    evaluated = regente(folder, "evaluate", "latest")
    return [
        "equal to the bit" if "equal to the bit" in evaluated.stdout else f"not equal {evaluated.returncode}",
        predicted(folder),
        *(exported(folder, form) for form in FORMATS),
        served(folder),
        (regente(folder, "rerun", "latest", "--verify").stdout.splitlines() or ["nothing said"])[-1],
    ]


def regente(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "regente", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def predicted(folder: Path) -> str:
    """Ten validation samples, as a file that the run's data module reads."""
    program = (
        "import sys; from pathlib import Path; import numpy as np, torch\n"
        "from regente.inference.predictor import load_run; from regente.jobs.runs import find\n"
        "opened = load_run(find('latest', Path.cwd())); data = opened.data\n"
        "data.prepare_data(); data.setup('test'); x = data.raw('val', torch.arange(10))\n"
        "if '.npz' in data.suffixes: name = 'asked.npz'; np.savez(name, x=x.numpy())\n"
        "elif '.csv' in data.suffixes:\n"
        "    name = 'asked.csv'; rows = x[0].tolist()\n"
        "    lines = [','.join(map(repr, row)) for row in rows]\n"
        "    Path(name).write_text('\\n'.join([','.join(data.names), *lines]) + '\\n')\n"
        "else: name = 'asked.txt'; Path(name).write_text('the value of the\\n' * 10)\n"
        "print(name)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    if made.returncode:
        return f"failed: {made.stderr.splitlines()[-1][:100]}"
    done = regente(folder, "predict", "latest", made.stdout.strip(), "--out", "answers.json")
    if done.returncode:
        return f"exit code {done.returncode}"
    return f"{len(json.loads((folder / 'answers.json').read_text()))} answers"


def exported(folder: Path, form: str) -> str:
    done = regente(folder, "export", "latest", "--format", form)
    found = re.search(r"largest difference (\S+)", done.stdout)
    return found[1] if found and not done.returncode else f"exit code {done.returncode}"


def served(folder: Path) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "regente", "serve", "latest", "--port", str(port)]
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        end = time.monotonic() + WAIT
        while time.monotonic() < end and server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        (request,) = folder.glob("runs/*/*/export/request.json")
        question = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", request.read_bytes(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(question, timeout=60) as answer:
            return f"{answer.status}, {len(json.load(answer)['predictions'])} answers"
    except (OSError, ValueError) as error:
        return f"failed: {error}"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.kill(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
