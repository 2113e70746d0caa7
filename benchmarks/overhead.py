"""Microseconds that the loop adds to each optimizer step: `regente train`, with and without several steps per call,
and Lightning with its defaults, against a plain torch loop that logs as often.

A small dense network on the digits, one thread, CPU time of the training alone; rounds interleaved, each in a
process of its own. Equality: the trained weights, to the bit, of ours and of the plain loop.
"""

import json
import statistics

from interleaved import interleave, table

ROUNDS, EPOCHS, BATCH = 5, 30, 16
STEPS = EPOCHS * -(-1257 // BATCH)  # 79 an epoch

PLAIN = """
import hashlib, json, os, sys, time
import torch, torch.nn.functional as F
from pathlib import Path
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.core.batches import Batches
from hydra.utils import instantiate
torch.set_num_threads(1)
config = resolve(compose("digits_mlp", json.loads(sys.argv[1])).node)
from pytorch_lightning import seed_everything
seed_everything(0, verbose=False)
os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's, which costs each step 0.2 ms where there is no GPU
data, model = instantiate(config["data"]), instantiate(config["model"])
data.setup("fit")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
batches = Batches(data.splits["train"], config["data"]["batch_size"], seed=0)
rows, total, step = [], 0.0, 0
begun = time.process_time()
for epoch in range(config["trainer"]["max_epochs"]):
    batches.set_epoch(epoch)
    for x, y in batches:
        loss = F.cross_entropy(model(data.normalise(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, step = total + loss.detach(), step + 1
        if step % 10 == 0:
            rows.append((step, total.item() / 10))
            total = 0.0
seconds = time.process_time() - begun
weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
json.dump({"seconds": seconds, "weights": hashlib.sha256(weights).hexdigest()}, open("out.json", "w"))
"""

MARK = """
import hashlib, json, time
from pytorch_lightning import Callback
class Mark(Callback):
    def on_train_start(self, trainer, module):
        self.begun = time.process_time()
    def on_train_end(self, trainer, module):
        seconds = time.process_time() - self.begun
        weights = b"".join(p.detach().numpy().tobytes() for p in module.model.parameters())
        found = {"seconds": seconds, "weights": hashlib.sha256(weights).hexdigest(), "steps": trainer.global_step}
        json.dump(found, open("out.json", "w"))
"""

DEFAULT = """
import json, sys, torch, torch.nn.functional as F
from hydra.utils import instantiate
from pytorch_lightning import LightningModule, Trainer, seed_everything
from regente.config.compose import compose
from regente.config.interpolation import resolve
from marks import Mark
torch.set_num_threads(1)
config = resolve(compose("digits_mlp", json.loads(sys.argv[1])).node)
seed_everything(0, verbose=False)
data, model = instantiate(config["data"]), instantiate(config["model"])
class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model
    def training_step(self, batch, index):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)
trainer = Trainer(max_epochs=config["trainer"]["max_epochs"], accelerator="cpu", callbacks=[Mark()], log_every_n_steps=10,
                  limit_val_batches=0, num_sanity_val_steps=0)
trainer.fit(Plain(), datamodule=data)
"""


def main() -> None:
    """Measure, check and print."""
    words = ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", f"data.batch_size={BATCH}", "model.widths=[32]"]
    ours = ["-m", "regente", "train", "digits_mlp", *words, "trainer.limit_val_batches=0", "callbacks=none"]
    ours += ["+callbacks.mark._target_=marks.Mark"]
    ways = {
        "plain": ["-c", PLAIN, json.dumps(words)],
        "ours": ours,
        "one step per call": [*ours, "trainer.steps_per_call=1"],
        "Lightning": ["-c", DEFAULT, json.dumps(words)],
    }
    found = interleave(ways, ROUNDS, {"OMP_NUM_THREADS": "1"}, {"marks.py": MARK})
    first = {name: rows[0]["weights"] for name, rows in found.items()}
    assert first["ours"] == first["one step per call"] == first["plain"], first
    for rows in found.values():
        for row in rows:
            row["step"] = row["seconds"] / STEPS * 1e6
    table(found, "step", "us a step", "plain")
    plain = statistics.median(row["step"] for row in found["plain"])
    added = {name: statistics.median(row["step"] for row in rows) - plain for name, rows in found.items()}
    print("over plain: " + ", ".join(f"{name} {value:+.0f} us" for name, value in added.items()))
    print(f"weights of ours and plain equal to the bit; {STEPS} steps")


if __name__ == "__main__":
    main()
