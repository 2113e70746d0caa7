"""Tokens per second of the tutorial's LSTM on text: `regente train` against the tutorial's Keras program and a plain
torch loop.

    python benchmarks/lstm.py [--path FILE] [--precision 16] [--threads 2]

Windows of 20 words, batches of 128, two epochs, the first is not counted. Equality: the weights of ours and of the
plain loop to the bit (in 32 bits); test losses within 5 %. Keras is in the extra `bench`; without it, it is left out.
"""

import argparse
import json
from importlib.util import find_spec

from interleaved import interleave, table

BATCH, EPOCHS, WINDOW = 128, 2, 20

COMMON = """
import hashlib, json, sys, time
import torch
from hydra.utils import instantiate
from regente.config.compose import compose
from regente.config.interpolation import resolve
words = json.loads(sys.argv[1]) if sys.argv[1:] and sys.argv[1].startswith("[") else []
def parts():
    config = resolve(compose("text_lstm", words).node)
    data = instantiate(config["data"], _convert_="all")
    data.prepare_data()
    data.setup("fit")
    return config, data
def digest(model):
    return hashlib.sha256(b"".join(p.detach().contiguous().numpy().tobytes() for p in model.parameters())).hexdigest()
def leave(times, tokens, loss, weights=""):
    speed = len(times[1:]) * tokens / sum(times[1:])
    json.dump({"speed": speed, "loss": loss, "weights": weights}, open("out.json", "w"))
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
        tokens = len(trainer.datamodule.splits["train"]) * WINDOW
        leave(self.times, tokens, float(trainer.callback_metrics["test/loss"]), digest(module.model))
"""

PLAIN = """
from common import *
import torch.nn.functional as F
from pytorch_lightning import seed_everything
from regente.data.core.batches import Batches
seed_everything(0, verbose=False)
import os
os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's, which costs each step 0.2 ms where there is no GPU
config, data = parts()
model = instantiate(config["model"], _convert_="all")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
batches, times = Batches(data.splits["train"], BATCH, seed=0), []
for epoch in range(EPOCHS):
    batches.set_epoch(epoch)
    begun = time.perf_counter()
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    times.append(time.perf_counter() - begun)
test = data.splits["test"]
with torch.inference_mode():
    total = sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in Batches(test, 1000))
leave(times, len(data.splits["train"]) * WINDOW, total / len(test), digest(model))
"""

KERAS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from common import *
config, data = parts()
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
tf.config.threading.set_inter_op_parallelism_threads(1)
import keras
from keras import layers
def arrays(split):
    x, y = split.batch(torch.arange(len(split)))
    return x.numpy().astype("int32"), keras.utils.to_categorical(y.numpy(), 1000).astype("float32")
keras.utils.set_random_seed(0)
if PRECISION == "16":
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
model = keras.Sequential([
    keras.Input((WINDOW,)), layers.Embedding(1000, 128), layers.LSTM(128),
    layers.Dense(1000, activation="softmax", dtype="float32"),
])
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
x, y = arrays(data.splits["train"])
times = []
for _ in range(EPOCHS):
    begun = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
    times.append(time.perf_counter() - begun)
leave(times, len(x) * WINDOW, float(model.evaluate(*arrays(data.splits["test"]), batch_size=1000, verbose=0)[0]))
"""


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", help="a text; without one the reference of the running Python")
    parser.add_argument("--precision", default="32", choices=["32", "16"])
    parser.add_argument("--threads", default="2")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    words = [
        f"data.path={asked.path or 'null'}",
        f"data.batch_size={BATCH}",
        "optimizer.lr=1e-3",
        "trainer=cpu",
    ]
    ours = [
        f"trainer.max_epochs={EPOCHS}",
        "trainer.limit_val_batches=0",
        f"trainer.precision={asked.precision}",
    ]
    ours += ["callbacks=none", "+callbacks.mark._target_=marks.Mark"]
    ways = {
        "ours": ["-m", "regente", "train", "text_lstm", *words, *ours],
        "plain loop": ["-c", PLAIN, json.dumps(words)],
    }
    if find_spec("keras"):
        ways["Keras"] = ["-c", KERAS, json.dumps(words)]
    facts = f'BATCH, EPOCHS, WINDOW, PRECISION = {BATCH}, {EPOCHS}, {WINDOW}, "{asked.precision}"\n'
    files = {"common.py": facts + COMMON, "marks.py": facts + MARKS}
    found = interleave(ways, asked.rounds, {"OMP_NUM_THREADS": asked.threads}, files)
    losses = {name: rows[0]["loss"] for name, rows in found.items()}
    assert max(losses.values()) / min(losses.values()) < 1.05, losses
    if asked.precision == "32":
        assert found["ours"][0]["weights"] == found["plain loop"][0]["weights"], "ours and plain differ"
    table(found, "speed", "tokens/s", "Keras" if "Keras" in found else "plain loop")
    print("test losses: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))


if __name__ == "__main__":
    main()
