"""Kill -9 of train, sweep, sync, evaluate, export and serve, at random moments; the next command has to mend the rest.

After each kill the next command is run, and then `regente sync`. Job directories and store have to agree: a run has ended
as its directory says, holds each metric of its journal once, and has one model. Prints the kills by command, how many
came before the end of the command, and the disagreements, whose folders stay. Run it in the checkout, whose tests fork
a warm process.

    python benchmarks/command_kills.py FOLDER [--kills 200] [--seed 0] [--minutes 60]
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import conftest

TRAIN = ["train", "digits_mlp", "trainer.max_epochs=2", "data.batch_size=256", "trainer.log_every_n_steps=1"]
COMMANDS = {
    "train": TRAIN,
    "resume": ["resume", "latest", "trainer.max_epochs=3"],
    "sweep": [*TRAIN, "-m", "seed=1,2"],
    "sync": ["sync"],
    "evaluate": ["evaluate", "latest"],
    "export": ["export", "latest", "--format", "torch"],
    "serve": ["serve", "latest", "--port", "8791"],
}
NEXT = {**COMMANDS, "train": ["resume", "latest"], "resume": ["resume", "latest"], "serve": ["sync"]}
STARTED = 0.3  # seconds; a command that is killed earlier has done nothing


class Started:
    """A command in a forked process."""

    def __init__(self, words: list[str]) -> None:
        self.begun = time.monotonic()
        if (pid := os.fork()) == 0:
            with suppress(BaseException):
                os.setsid()
                conftest._regente(tuple(words), str(Path.cwd()), dict(os.environ), cold=False)
            os._exit(0)
        self.pid = pid

    def ended(self, seconds: float) -> bool:
        """Whether it ends within these seconds."""
        while time.monotonic() - self.begun < seconds:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return True
            time.sleep(0.01)
        return False


def run(words: list[str]) -> float:
    """Run a command to its end; the seconds that it took."""
    started = Started(words)
    if not started.ended(600):
        sys.exit(f"regente {' '.join(words)} hangs in {Path.cwd()}")
    return time.monotonic() - started.begun


def kill_all(draw: random.Random, session: int) -> None:
    """Kill all processes of this folder at once, or one after another in any order."""
    there = [int(each.name) for each in Path("/proc").glob("[0-9]*") if _works_here(each)]
    draw.shuffle(there)
    pause = draw.choice([0, 0, 0.2])
    for pid in there:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
    with suppress(OSError):
        os.killpg(session, signal.SIGKILL)  # what works elsewhere: the server of a model
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def _works_here(process: Path) -> bool:
    with suppress(OSError):
        return process.joinpath("cwd").readlink() == Path.cwd() and process.name != str(os.getpid())
    return False


def disagreements(project: Path) -> Iterator[str]:
    """Where job directories and store do not agree."""
    database = sqlite3.connect(project / "mlflow.db")
    known = set()
    for file in sorted(project.glob("runs/**/journal.jsonl")):
        if file.stat().st_size == 0:
            continue
        recorded = json.loads((file.parent / "recorded.json").read_text())
        known.add(recorded.get("run_id"))
        for problem in _of_job(file.parent, recorded, database):
            yield f"{file.parent.relative_to(project)}: {problem}"
    if strangers := {each for (each,) in database.execute("select run_uuid from runs")} - known:
        yield f"{len(strangers)} runs of no job"


def _of_job(path: Path, recorded: dict[str, Any], database: sqlite3.Connection) -> Iterator[str]:
    def query(text: str) -> list[Any]:
        return database.execute(text, [recorded.get("run_id")]).fetchall()

    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]
    statuses = [status for (status,) in query("select status from runs where run_uuid = ?")]
    finished = any(line.get("status") == "FINISHED" for line in lines) or (path / "result.json").is_file()
    if statuses != ["FINISHED" if finished else "KILLED"]:
        yield f"result or end: {finished}, status {statuses}"
    if not recorded.get("complete"):
        yield "not complete"
    own = "key not like 'system/%' and key not like 'best/%' and key not in ('throughput', 'peak_megabytes')"
    there = Counter(query(f"select key, step from metrics where run_uuid = ? and {own}"))
    written = Counter(
        (k, line["step"]) for line in lines if line["kind"] == "metrics" for k in line["values"]
    )
    written = Counter({key: n for key, n in written.items() if not key[0].startswith(("best/", "system/"))})
    if there != written:
        yield f"metrics: {written - there} missing, {there - written} too many"
    results = max(1, sum(line["kind"] == "result" for line in lines))  # each attempt that ended has its own
    repeated = query("select key, step, count(*) from metrics where run_uuid = ? group by key, step")
    if twice := [each for each in repeated if each[2] > (results if _of_result(each[0]) else 1)]:
        yield f"metrics twice: {twice[:3]}"
    models = query("select status from logged_models where source_run_id = ? and lifecycle_stage = 'active'")
    sizes = query("select count(distinct tag_value) from logged_model_tags t join logged_models m using (model_id)"
                  " where m.source_run_id = ? and tag_key = 'regente.weights'")  # fmt: skip
    if [status for (status,) in models if status != 2] or len(models) != sizes[0][0]:
        yield f"models: {models}, of {sizes[0][0]} weights"


def _of_result(metric: str) -> bool:
    return metric.startswith("best/") or metric in ("throughput", "peak_megabytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    for name in conftest.WARM:
        import_module(name)
    draw, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    killed, effective, wrong = Counter[str](), Counter[str](), Counter[str]()
    took = dict.fromkeys(COMMANDS, 8.0)  # seconds of the command, of the last one that was not killed
    folder = options.folder.resolve()
    number = 0
    while sum(effective.values()) < options.kills and time.monotonic() < end:
        project = folder / str(number)
        project.mkdir(parents=True)
        os.chdir(project)
        os.environ.update(XDG_CACHE_HOME=str(folder / "cache"), XDG_STATE_HOME=str(folder / "cache"))
        took["train"] = run(TRAIN)
        for name in draw.sample(list(COMMANDS), len(COMMANDS)):
            if name == "sync":  # of what a killed training has left
                training = Started(TRAIN)
                training.ended(draw.uniform(STARTED, took["train"]))
                kill_all(draw, training.pid)
            started = Started(COMMANDS[name])
            ended = started.ended(draw.uniform(STARTED, took[name]))
            if ended:
                took[name] = time.monotonic() - started.begun
            kill_all(draw, started.pid)
            killed[name] += 1
            effective[name] += not ended
            run(NEXT[name])
            run(["sync"])
            found = list(disagreements(project))
            wrong[name] += bool(found)
            print(number, name, "ended" if ended else "killed", "; ".join(found) or "agree", flush=True)
            if found:
                break
        else:
            shutil.rmtree(project, ignore_errors=True)
        number += 1
    print("command   kills  before its end  disagreements")
    for name in COMMANDS:
        print(f"{name:8} {killed[name]:6} {effective[name]:15} {wrong[name]:14}")
    print(f"{'all':8} {killed.total():6} {effective.total():15} {wrong.total():14}")


if __name__ == "__main__":
    main()
