"""What a command costs the whole machine: CPU of all its processes, until the last of them has ended. Linux.

Each command runs in a folder of its own, with a store that exists. Processes that it leaves become children of a subreaper
of this program, which counts them too. `plain` is a script with MLFlowLogger and mlflow.pytorch.log_model. A sweep's
ratio is to the same sweep without tracking. Usage: whole_machine.py [ROUNDS] [NAME...]
"""

import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

PLAIN = """
import mlflow, pytorch_lightning as pl, torch
from mlflow.models import infer_signature
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger
from torch.nn.functional import cross_entropy
from regente.data.digits import Digits
from regente.models.cnn import CNN

class Lit(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = CNN([1, 28, 28], 10, widths=[32, 64, 64], hidden=64)

    def step(self, batch, stage):
        x, y = batch
        logits = self.model(x)
        loss = cross_entropy(logits, y)
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/acc", (logits.argmax(1) == y).float().mean(), on_epoch=True)
        return loss

    def training_step(self, batch, number):
        return self.step(batch, "train")

    def validation_step(self, batch, number):
        self.step(batch, "val")

    def test_step(self, batch, number):
        self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)

pl.seed_everything(0)
names = list("0123456789")
data = Digits(batch_size=64, num_classes=10, input_shape=[1, 28, 28], class_names=names, mean=[0.3048], std=[0.3242])
task = Lit()
logger = MLFlowLogger("plain", tracking_uri="sqlite:///mlflow.db")
best = ModelCheckpoint(monitor="val/acc", mode="max")
trainer = pl.Trainer(max_epochs=10, logger=logger, callbacks=[best], enable_progress_bar=False, accelerator="cpu")
trainer.fit(task, datamodule=data)
print(trainer.test(task, datamodule=data, ckpt_path="best"))
logger.experiment.log_artifact(logger.run_id, best.best_model_path)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
x, model = torch.zeros(2, 1, 28, 28), task.model.eval()
signature = infer_signature(x.numpy(), model(x).detach().numpy())
with mlflow.start_run(logger.run_id):
    mlflow.pytorch.log_model(
        model, name="model", input_example=x.numpy(), signature=signature, serialization_format="pt2"
    )
"""
REGENTE = str(Path(sys.executable).with_name("regente"))
SWEEP = [REGENTE, "train", "digits_mlp", "trainer.max_epochs=2", "-m"]
NONE = "tracking=none"
COMMANDS: dict[str, tuple[list[str], str]] = {  # by name: the words, and the command that it is compared with
    "run, tracking=none": ([REGENTE, "train", NONE], ""),
    "run": ([REGENTE, "train"], "run, tracking=none"),
    "run, plain script": ([sys.executable, "plain.py"], "run, tracking=none"),
    "sweep of 8, tracking=none": ([*SWEEP, "seed=range(8)", NONE], ""),
    "sweep of 8": ([*SWEEP, "seed=range(8)"], "sweep of 8, tracking=none"),
    "sweep of 32, tracking=none": ([*SWEEP, "seed=range(32)", NONE], ""),
    "sweep of 32": ([*SWEEP, "seed=range(32)"], "sweep of 32, tracking=none"),
    # of the run that `run` leaves
    "evaluate": ([REGENTE, "evaluate", "latest"], ""),
    "predict": ([REGENTE, "predict", "latest", "x.npy"], ""),
    "export": ([REGENTE, "export", "latest", "--format", "torch"], ""),
    "rerun --verify": ([REGENTE, "rerun", "latest", "--verify"], ""),
    "ui, to its first page": ([REGENTE, "ui", "--port", "5123"], ""),
}
OF_A_RUN = ("evaluate", "predict", "export", "rerun --verify", "ui, to its first page")
PAGE = "http://127.0.0.1:5123/"


def main(rounds: int, names: list[str]) -> None:
    """Run the commands round by round, and print medians."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        start = prepared(Path(folder) / "start")
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                place = Path(folder) / "place"
                shutil.copytree(start, place)
                if name in OF_A_RUN:
                    measure([REGENTE, "train", NONE], place)
                found[name].append(measure(COMMANDS[name][0], place))
                shutil.rmtree(place)
    print(f"{'':<28}{'prompt':>9}{'last end':>10}{'CPU':>9}{'left':>6}   medians of {rounds}, seconds")
    middle = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in found.items()
    }
    for name, row in middle.items():
        print(f"{name:<28}{row['prompt']:9.1f}{row['last']:10.1f}{row['cpu']:9.1f}{row['left']:6.0f}", end="")
        base = middle.get(COMMANDS[name][1])
        print(
            f"   CPU {row['cpu'] / base['cpu']:.2f} times, wall {row['prompt'] - base['prompt']:+.1f} s"
            if base
            else ""
        )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


def prepared(folder: Path) -> Path:
    """A folder with an empty store, the plain script and an input."""
    folder.mkdir()
    (folder / "plain.py").write_text(PLAIN)
    subprocess.run(
        [sys.executable, "-c", "import numpy as np; np.save('x.npy', np.zeros((2, 1, 28, 28), np.uint8))"],
        cwd=folder,
        check=True,
    )
    code = "from mlflow.tracking import MlflowClient as C; C('sqlite:///mlflow.db').search_experiments()"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return folder


def measure(words: list[str], folder: Path) -> dict[str, float]:
    """Seconds to the prompt and to the last end, CPU seconds of all, and processes left one second after the prompt."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(words, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        if "ui" in words:
            end_at_first_page(process)
        elif process.wait():
            raise SystemExit(f"{' '.join(words)} failed:\n{(folder / 'out').read_text()[-3000:]}")
    prompt = time.monotonic() - begun
    time.sleep(1)
    left = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            left = max(left, len(children()))
            time.sleep(0.05)
    last = time.monotonic() - begun if left else prompt
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"prompt": prompt, "last": last, "cpu": cpu, "left": left}


def end_at_first_page(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the page is there, then end the server."""
    while True:
        with suppress(OSError), urlopen(PAGE, timeout=60):
            break
        time.sleep(0.05)
    process.terminate()
    process.wait()


def children() -> list[str]:
    """The numbers of the children of this process."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    main(count, sys.argv[2:] or [name for name in COMMANDS if "32" not in name])
