"""Peak memory of an MNIST run: `regente train mnist_cnn` against a plain torch script of the same training.

    python benchmarks/memory.py --root FOLDER

FOLDER holds MNIST/raw, gzipped or not. An epoch of 200 batches of 128, validation (ours alone), then the test set.
Equality: the sizes of the data and of the batches; test accuracies within three percentage points.
"""

import argparse
import gzip
import shutil
import tempfile
from pathlib import Path

from interleaved import interleave, table

PLAIN = """
import json, resource, sys
import torch, torch.nn.functional as F
from torch import nn
from torchvision.datasets import MNIST
torch.manual_seed(0)
train, test = MNIST(sys.argv[1], train=True), MNIST(sys.argv[1], train=False)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10),
)
optimizer = torch.optim.Adam(model.parameters())
def scaled(x):
    return (x.unsqueeze(1).float() / 255 - 0.1307) / 0.3081
for index in torch.randperm(len(train.data)).split(128)[:200]:
    loss = F.cross_entropy(model(scaled(train.data[index])), train.targets[index])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.inference_mode():
    parts = zip(test.data.split(128), test.targets.split(128))
    right = sum((model(scaled(x)).argmax(1) == y).sum().item() for x, y in parts)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
json.dump({"peak": peak, "accuracy": right / len(test.data)}, open("out.json", "w"))
"""

MARK = """
import json, resource
from pytorch_lightning import Callback
class Mark(Callback):
    def on_test_end(self, trainer, module):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        json.dump({"peak": peak, "accuracy": float(trainer.callback_metrics["test/acc"])}, open("out.json", "w"))
"""


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True, help="a folder that holds MNIST/raw")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for file in Path(asked.root, "MNIST", "raw").iterdir():
            target = raw / file.name.removesuffix(".gz")
            with (
                (gzip.open if file.suffix == ".gz" else open)(file, "rb") as packed,
                target.open("wb") as whole,
            ):
                shutil.copyfileobj(packed, whole)
        ours = ["-m", "regente", "train", "mnist_cnn", f"data.root={folder}", "trainer=cpu"]
        ours += ["trainer.max_epochs=1", "trainer.limit_train_batches=200", "scheduler=none"]
        ours += ["+callbacks.mark._target_=marks.Mark"]
        ways = {"ours": ours, "plain": ["-c", PLAIN, folder]}
        found = interleave(ways, asked.rounds, {}, {"marks.py": MARK})
    accuracies = {name: rows[0]["accuracy"] for name, rows in found.items()}
    assert abs(accuracies["ours"] - accuracies["plain"]) < 0.03, accuracies
    table(found, "peak", "MiB", "plain")
    print("test accuracies: " + ", ".join(f"{name} {value:.4f}" for name, value in accuracies.items()))


if __name__ == "__main__":
    main()
