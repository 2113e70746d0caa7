"""Seconds from Enter to the first optimizer step: `regente train` against the same job as a plain torch script.

Both run in fresh processes, warm file cache, interleaved; equality: the first loss of both, to 1e-6.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5

# The same job with torch alone: data, model, optimizer, one batch after the other
PLAIN = """
import gzip, json, sys, time
import numpy as np, torch, torch.nn.functional as F
from importlib.util import find_spec
from pathlib import Path
from torch import nn
torch.manual_seed(0)
file = Path(find_spec("sklearn").origin).parent / "datasets/data/digits.csv.gz"
table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
x = F.interpolate(torch.from_numpy(table[:, :64].astype(np.float32)).view(-1, 1, 8, 8), size=(28, 28), mode="bilinear")
x = x.mul_(255 / 16).round_().to(torch.uint8)
y = torch.from_numpy(table[:, 64].astype(np.int64))
split = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:1257]
x, y = x[split], y[split]
model = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10),
)
for layer in model:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
order = torch.randperm(1257, generator=torch.Generator().manual_seed(0))
for batch in order.split(64):
    images = x[batch].float().mul_(1 / (255 * 0.3242)).sub_(0.3048 / 0.3242)
    loss = F.cross_entropy(model(images), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    json.dump([time.time(), loss.item()], open("mark", "w"))
    break
"""

MARK = """
import json, time
from pytorch_lightning import Callback
class Mark(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if index == 0:
            json.dump([time.time(), outputs["loss"].item()], open("mark", "w"))
"""


def measure(command: list[str], folder: Path) -> dict[str, float]:
    """Wall seconds to the first step, CPU seconds of the whole process tree, and the first loss."""
    (folder / "mark").unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.time()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    at, loss = json.loads((folder / "mark").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"first step": at - started, "cpu": cpu, "loss": loss}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plain.py").write_text(PLAIN)
        (folder / "marks.py").write_text(MARK)
        regente = str(Path(sys.executable).with_name("regente"))
        short = [
            "trainer.max_epochs=1",
            "trainer.limit_train_batches=1",
            "trainer.limit_val_batches=1",
            "callbacks.mark._target_=marks.Mark",
        ]
        commands = {
            "plain torch": [sys.executable, "plain.py"],
            "regente": [regente, "train", *short],
            "regente, tracking=none": [regente, "train", *short, "tracking=none"],
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(ROUNDS + 1):  # the first round fills the file cache
            for name, command in commands.items():
                found[name].append(measure(command, folder))
    losses = {row["loss"] for rows in found.values() for row in rows}
    assert max(losses) - min(losses) < 1e-6, f"not the same job: first losses {losses}"
    base = statistics.median(row["first step"] for row in found["plain torch"][1:])
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {ROUNDS} rounds, first loss {losses.pop():.6f} in each"
    )
    for name, rows in found.items():
        walls, cpus = ([row[key] for row in rows[1:]] for key in ("first step", "cpu"))
        middle = statistics.median(walls)
        print(
            f"{name:<24} first step after {middle:5.2f} s ({min(walls):.2f} to {max(walls):.2f}), "
            f"ratio {middle / base:.2f}; whole tree {statistics.median(cpus):.1f} CPU s"
        )


if __name__ == "__main__":
    main()
