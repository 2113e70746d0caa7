"""Images per second of the tutorial's CNN on MNIST: `regente train` against the tutorial's Keras program, a plain
torch loop with the same kernels, and Lightning with a sample at a time from PIL, as lightning-hydra-template does.

    python benchmarks/cnn.py --root FOLDER [--precision 16] [--threads 2]

FOLDER holds MNIST/raw. Three epochs of 12,800 images in batches of 128; the first is not counted. Equality: the
weights of ours and of the plain loop to the bit (in 32 bits); test accuracies within two percentage points.
Keras is in the extra `bench`; without it, it is left out.
"""

import argparse
import json
from importlib.util import find_spec

from interleaved import interleave, table

TRAINED, BATCH, EPOCHS = 12_800, 128, 3

COMMON = """
import hashlib, json, sys, time
import torch
from hydra.utils import instantiate
from regente.config.compose import compose
from regente.config.interpolation import resolve
words = json.loads(sys.argv[1]) if sys.argv[1:] and sys.argv[1].startswith("[") else []
def parts():
    config = resolve(compose("mnist_cnn", words).node)
    data = instantiate(config["data"], _convert_="all")
    data.prepare_data()
    data.setup("fit")
    return config, data
def digest(model):
    return hashlib.sha256(b"".join(p.detach().contiguous().numpy().tobytes() for p in model.parameters())).hexdigest()
def leave(times, accuracy, weights=""):
    speed = len(times[1:]) * TRAINED / sum(times[1:])
    json.dump({"speed": speed, "accuracy": accuracy, "weights": weights}, open("out.json", "w"))
"""

MARKS = """
import time
from pytorch_lightning import Callback
from common import digest, leave
class Mark(Callback):
    def __init__(self):
        self.times = []
    def on_train_epoch_start(self, trainer, module):
        self.begun = time.perf_counter()
    def on_train_epoch_end(self, trainer, module):
        self.times.append(time.perf_counter() - self.begun)
    def on_test_end(self, trainer, module):
        leave(self.times, float(trainer.callback_metrics["test/acc"]), digest(module.model))
"""

PLAIN = """
from common import *
import torch.nn.functional as F
from pytorch_lightning import seed_everything
from regente.data.core.batches import Batches
from regente.training.performance import channels_last
seed_everything(0, verbose=False)
import os
os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's, which costs each step 0.2 ms where there is no GPU
config, data = parts()
model = channels_last(instantiate(config["model"], _convert_="all"))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
batches, times = Batches(data.splits["train"], BATCH, seed=0), []
for epoch in range(EPOCHS):
    batches.set_epoch(epoch)
    begun = time.perf_counter()
    for x, y in batches:
        loss = F.cross_entropy(model(data.normalise(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    times.append(time.perf_counter() - begun)
test = data.splits["test"]
with torch.inference_mode():
    right = sum((model(data.normalise(x)).argmax(-1) == y).sum().item() for x, y in Batches(test, 1000))
leave(times, right / len(test), digest(model))
"""

TEMPLATE = """
from common import *
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from marks import Mark
seed_everything(0, verbose=False)
config, data = parts()
change = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
class Images(Dataset):
    def __init__(self, split):
        self.x, self.y = split.x.squeeze(1), split.y
    def __len__(self):
        return len(self.y)
    def __getitem__(self, number):
        return change(Image.fromarray(self.x[number].numpy(), mode="L")), int(self.y[number])
class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = instantiate(config["model"], _convert_="all")
        self.train_loss, self.train_acc = MeanMetric(), MulticlassAccuracy(10, average="micro")
        self.test_acc = MulticlassAccuracy(10, average="micro")
    def training_step(self, batch, index):
        x, y = batch
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        self.train_loss(loss)
        self.train_acc(logits.argmax(1), y)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss
    def test_step(self, batch, index):
        self.test_acc(self.model(batch[0]).argmax(1), batch[1])
        self.log("test/acc", self.test_acc)
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)
trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=[Mark()], logger=CSVLogger("."))
module = Module()
trainer.fit(module, DataLoader(Images(data.splits["train"]), BATCH, shuffle=True))
trainer.test(module, DataLoader(Images(data.splits["test"]), BATCH))
"""

KERAS = """
import os, json, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from common import *
config, data = parts()
import tensorflow as tf
threads = int(os.environ["OMP_NUM_THREADS"])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
import keras
from keras import layers
def arrays(split):
    x = ((split.x.squeeze(1).unsqueeze(-1).float() / 255 - 0.1307) / 0.3081).numpy()
    return x, keras.utils.to_categorical(split.y.numpy(), 10)
keras.utils.set_random_seed(0)
if PRECISION == "16":
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
model = keras.Sequential([
    keras.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2),
    layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2), layers.Conv2D(64, 3, activation="relu"),
    layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax", dtype="float32"),
])
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
x, y = arrays(data.splits["train"])
times = []
for _ in range(EPOCHS):
    begun = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    times.append(time.perf_counter() - begun)
leave(times, float(model.evaluate(*arrays(data.splits["test"]), batch_size=1000, verbose=0)[1]))
"""


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True, help="a folder that holds MNIST/raw")
    parser.add_argument("--precision", default="32", choices=["32", "16"])
    parser.add_argument("--threads", default="2")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    words = [f"data.root={asked.root}", f"data.num_val={60_000 - TRAINED}", f"data.batch_size={BATCH}"]
    words += ["optimizer.lr=1e-3", "scheduler=none", "trainer=cpu"]
    ours = [
        f"trainer.max_epochs={EPOCHS}",
        "trainer.limit_val_batches=0",
        f"trainer.precision={asked.precision}",
    ]
    ours += ["callbacks=none", "+callbacks.mark._target_=marks.Mark"]

    ways = {
        "ours": ["-m", "regente", "train", "mnist_cnn", *words, *ours],
        "plain loop": ["-c", PLAIN, json.dumps(words)],
        "template": ["-c", TEMPLATE, json.dumps(words)],
    }
    if find_spec("keras"):
        ways["Keras"] = ["-c", KERAS, json.dumps(words)]
    facts = f'TRAINED, BATCH, EPOCHS, PRECISION = {TRAINED}, {BATCH}, {EPOCHS}, "{asked.precision}"\n'
    found = interleave(
        ways,
        asked.rounds,
        {"OMP_NUM_THREADS": asked.threads},
        {"common.py": facts + COMMON, "marks.py": MARKS},
    )
    accuracies = {name: rows[0]["accuracy"] for name, rows in found.items()}
    assert max(accuracies.values()) - min(accuracies.values()) < 0.02, accuracies
    if asked.precision == "32":
        assert found["ours"][0]["weights"] == found["plain loop"][0]["weights"], "ours and plain differ"
    table(found, "speed", "images/s", "Keras" if "Keras" in found else "plain loop")
    print("test accuracies: " + ", ".join(f"{name} {value:.4f}" for name, value in accuracies.items()))


if __name__ == "__main__":
    main()
