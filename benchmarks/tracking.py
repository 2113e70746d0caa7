"""What logging costs training: 300 steps of three metrics by Regente's journal, Lightning's MLFlowLogger and neither.

Each run is a process forked from one that has imported everything. All compute the metrics; those that log do it in
one `trainer.logger.log_metrics(values, step)` a step, in `on_train_batch_end`. Timed is the loop, `on_train_start` to
`on_train_end`; MLflow's run exists by then, but in "at once", where our shipper still imports MLflow.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from subprocess import DEVNULL, Popen, check_output
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.jobs.job import freeze
from regente.tracking.lightning_logger import JournalLogger
from regente.tracking.recorder import Recorder
from regente.tracking.shipping_state import read_state
from regente.tracking.store import unreachable

ROUNDS, STEPS, KILL_AT, AWAY, DISTURBED = 5, 300, 100, 20.0, 0.2
WARM = ["mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "regente.training.fit"]
VARIANTS = ["off", "ours, SQLite", "ours, server", "MLFlowLogger, SQLite", "MLFlowLogger, server"]
VARIANTS += ["ours at once, SQLite"]


class Measured(pl.LightningModule):
    """An MLP that logs three metrics a step; it keeps times, values, and how much of the cores others had."""

    def __init__(self, pipe: Any, main: int, pause: float) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        self.pipe, self.main, self.pause = pipe, psutil.Process(main), pause
        self.found: dict[str, Any] = {"calls": [], "ends": [], "rows": []}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_start(self) -> None:
        self.others, self.begun = others(self.main), time.monotonic()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        logits, labels = self.layers(batch[0]), batch[1]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        values = loss, (logits.argmax(1) == labels).float().mean(), logits.max()
        self.metrics = {f"train/{number}": value.item() for number, value in enumerate(values)}
        time.sleep(self.pause)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        step, before = self.trainer.global_step, time.perf_counter()
        if self.trainer.logger is not None:
            self.trainer.logger.log_metrics(self.metrics, step=step)
            self.found["calls"].append((time.perf_counter() - before) / len(self.metrics))
            self.found["rows"] += [(key, step, value) for key, value in self.metrics.items()]
        self.found["ends"].append(time.monotonic())
        if self.pause and step == KILL_AT:
            self.pipe.send("kill the server")
            self.pipe.recv()

    def on_train_end(self) -> None:
        self.found["seconds"] = time.monotonic() - self.begun
        self.found["others"] = (others(self.main) - self.others) / self.found["seconds"]


def others(main: psutil.Process) -> float:
    """CPU seconds that this machine has used, less those of this benchmark's processes."""
    total, mine = psutil.cpu_times(), 0.0
    for process in [main, *main.children(recursive=True)]:
        with suppress(psutil.Error):
            mine += sum(process.cpu_times()[:4])
    return float(sum(total) - total.idle - total.iowait - mine)


def train(pipe: Any, main: int, whose: str, uri: str, pause: float) -> None:
    """One run, in a process of its own; sends what it found."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    logger: Any = whose == "MLFlowLogger" and pl.loggers.MLFlowLogger("b", tracking_uri=uri)
    if ours := whose.startswith("ours"):
        made = compose("digits_cnn", [f"tracking.uri={uri}", "tracking.log_model=none"])
        job = freeze(made.yaml(), Path("runs"), experiment="b", overrides=[], command=sys.argv, choices={})
        recorder = Recorder(job, resolve(made.node), 0, Redactor())
        recorder.start()
        logger = JournalLogger(recorder.journal, str(job.path), job.experiment, job.path.name)
        assert until(lambda: whose != "ours" or read_state(job.path)["offset"] > 0, 120)
    until(lambda: whose == "ours at once" or psutil.cpu_percent(0.3) < 20, 3)  # a quiet moment, if any
    task = Measured(pipe, main, pause)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=logger, **quiet)
    data = TensorDataset(torch.randn(STEPS * 64, 64), torch.randint(10, (STEPS * 64,)))
    with suppress(Exception if pause else ()):  # what an outage may come to
        trainer.fit(task, DataLoader(data, batch_size=64))
    if ours:
        recorder.finish("FINISHED")
        recorder.shipper.wait(120)
    pipe.send(task.found | {"run": read_state(job.path)["run_id"] if ours else logger and logger.run_id})


def until(true: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (came := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(came)


class Bench:
    """Two SQLite stores, an `mlflow server` on one of them, and the process that runs are forked from."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(WARM)
        self.port = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
        self.uris = {"SQLite": "sqlite:///SQLite.db", "server": f"http://127.0.0.1:{self.port}"}

    def start(self) -> None:
        words = f"mlflow server --host 127.0.0.1 --port {self.port} --workers 1 --backend-store-uri sqlite:///server.db"
        command = [sys.executable, "-m", *words.split()]
        self.server = Popen(command, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
        assert until(lambda: not unreachable(self.uris["server"]), 90), "the server does not start"
        self.back = time.monotonic()

    def run(self, name: str, pause: float = 0.0) -> dict[str, Any]:
        """What a run found; with a pause in its steps the server is killed, else all must be in the database."""
        (whose, _, store), (ours, theirs) = name.partition(", "), self.context.Pipe()
        facts = (theirs, os.getpid(), whose, self.uris.get(store, ""), pause)
        (process := self.context.Process(target=train, args=facts, daemon=True)).start()
        if pause:
            assert ours.poll(120) and ours.recv() == "kill the server"
            os.killpg(self.server.pid, signal.SIGKILL)  # the group that it leads
            self.server.wait()
            self.killed = time.monotonic()
            ours.send("killed")
            time.sleep(AWAY)
            self.start()
        assert ours.poll(240), f"{name}: no word for four minutes"
        found: dict[str, Any] = ours.recv()
        process.join(20)
        found["delivered"] = self.rows(store, found["run"])
        assert pause or found["delivered"] == sorted(found["rows"]), f"{name}: not equal"
        return found

    def rows(self, store: str, run: Any) -> list[tuple[str, int, float]]:
        query = "select key, step, value from metrics where run_uuid = ? and key like 'train/%'"
        return sorted(sqlite3.connect(f"{store}.db").execute(query, (run,))) if run else []


def compare(bench: Bench) -> None:
    """Rounds of all variants, each starting with another one; then the table."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for turn in range(-1, ROUNDS):  # the first makes the stores and fills the file cache
        for name in VARIANTS[turn:] + VARIANTS[:turn]:
            run = bench.run(name)
            if turn >= 0 and run["others"] > DISTURBED:  # cores: made again, once; the better one counts
                run = min(run, bench.run(name), key=lambda run: run["others"])
            found[name] += [run][: turn + 1]
    share = [run["others"] for runs in found.values() for run in runs]
    print(f"{ROUNDS} rounds; others used {median(share):.2f} cores in a loop, at most {max(share):.2f}")
    print(f"{'':<22}    loop, s (min to max)  ratio to off  us a metric, p99  values, equal")
    for name, runs in found.items():
        walls = [run["seconds"] for run in runs]
        calls = [1e6 * call for run in runs for call in run["calls"]] or [0, 0]
        ratio = median(walls) / median(run["seconds"] for run in found["off"])
        print(f"{name:<22} {median(walls):7.3f} ({min(walls):.3f} to {max(walls):.3f})", end="")
        print(
            f"{ratio:12.2f} {median(calls):13.1f}{quantiles(calls, n=100)[98]:9.1f} {len(runs[0]['rows']):9}"
        )


def outages(bench: Bench) -> None:
    """The server dies at step 100 and is started again 20 s later; then what is missing is shipped."""
    for name, pause in ("ours, server", 0.05), ("MLFlowLogger, server", 0.05), ("ours, server", 0.15):
        run = bench.run(name, pause)
        ends, killed, last = run["ends"], bench.killed, min(bench.back, run["ends"][-1])
        before = (KILL_AT - 1) / (ends[KILL_AT - 1] - ends[0])
        during = sum(killed < end <= last for end in ends) / (last - killed)
        check_output([sys.executable, "-m", "regente", "sync"], timeout=120)
        rows = bench.rows("server", run["run"])
        longest, equal = max(map(float.__sub__, ends[1:], ends)), rows == sorted(run["rows"])
        print(
            f"{name}, {1000 * pause:.0f} ms of sleep a step, server away for {bench.back - killed:.0f} s: {before:.1f} steps/s",
            f"before, {during:.1f} meanwhile (ratio {during / before:.2f}), longest step {longest:.2f} s;",
            f"{len(run['delivered'])} of {len(run['rows'])} metrics delivered, {len(rows)} after regente sync, equal: {equal}",
        )


def main() -> None:
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}, Lightning {pl.__version__}"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()}, {versions}, MLflow {version('mlflow')}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends with this
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        bench = Bench()
        bench.start()
        try:
            compare(bench)
            outages(bench)
        finally:
            os.killpg(bench.server.pid, signal.SIGKILL)
    print(f"load after {os.getloadavg()}")


if __name__ == "__main__":
    main()
