"""Steps per second of two ranks on gloo: `regente train` against a hand-written loop with torch's DDP.

The CNN on the digits, one thread for each rank, both log the loss of all ranks as often; rounds interleaved, the
first epoch left out. Equality: the weights of both, to the bit, and those of one process with the same batches within
a bound. A round of its own counts the collectives of the training steps.
"""

import base64
import json
import sys

import numpy as np
from interleaved import interleave, table

ROUNDS, EPOCHS, BATCH = 5, 12, 32
BOUND = 5e-5  # of the weights, against one process: the sums of gradients are rounded in another order

PLAIN = """
import json, os, sys, time
import torch, torch.distributed as dist, torch.nn.functional as F
from hydra.utils import instantiate
from pytorch_lightning import seed_everything
from torch.nn.parallel import DistributedDataParallel
from marks import Count, weights
from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.data.core.batches import Batches
from regente.training.performance import channels_last, tune_process
rank = int(os.environ["RANK"])
tune_process()
torch.set_num_threads(1)
config = resolve(compose("digits_cnn", json.loads(sys.argv[1])).node)
seed_everything(0, verbose=False)
dist.init_process_group("gloo")
data, model = instantiate(config["data"]), channels_last(instantiate(config["model"]))
data.setup("fit")
wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
optimizer = torch.optim.Adam(model.parameters(), lr=config["optimizer"]["lr"], fused=True)
batches = Batches(data.splits["train"], config["data"]["batch_size"], seed=0, rank=rank, world_size=2)
rows, waiting, step, count = [], [], 0, Count()
for epoch in range(config["trainer"]["max_epochs"]):
    if epoch == 1:
        count.begin()
        begun = time.perf_counter()
    batches.set_epoch(epoch)
    for x, y in batches:
        loss = F.cross_entropy(wrapped(data.normalise(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        waiting.append(loss.detach())
        step += 1
        if step % 10 == 0:
            losses = torch.stack(waiting)
            dist.all_reduce(losses)
            rows.append((step, losses.mean().item() / 2))
            waiting = []
seconds = time.perf_counter() - begun
found = {"seconds": seconds, "weights": weights(model), "steps": step, "collectives": count.end()}
if rank == 0:
    json.dump(found, open("out.json", "w"))
dist.barrier()
dist.destroy_process_group()
"""

MARKS = """
import base64, json, os, time
import torch
from pytorch_lightning import Callback

def weights(model):
    flat = torch.cat([p.detach().contiguous().view(-1) for p in model.parameters()])
    return base64.b64encode(flat.numpy().tobytes()).decode()

class Count:
    "Collectives by kind, where COUNT is set."
    profile = None
    def begin(self):
        if "COUNT" in os.environ:
            self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            self.profile.__enter__()
    def end(self):
        if self.profile is None:
            return {}
        self.profile.__exit__(None, None, None)
        return {e.key: e.count for e in self.profile.key_averages() if e.key.startswith("gloo:")}

class Mark(Callback):
    def __init__(self):
        self.count = Count()
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            self.count.begin()
            self.begun = time.perf_counter()
    def on_train_epoch_end(self, trainer, module):
        self.seconds = time.perf_counter() - self.begun if trainer.current_epoch else 0
    def on_train_end(self, trainer, module):
        found = {"seconds": self.seconds, "weights": weights(module.model), "steps": trainer.global_step,
                 "collectives": self.count.end()}
        if trainer.is_global_zero:
            json.dump(found, open("out.json", "w"))
"""


def main() -> None:
    """Measure, check and print; words after the program's name are overrides of both."""
    words = ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", f"data.batch_size={BATCH}", *sys.argv[1:]]
    common = [*words, "trainer.limit_val_batches=0", "callbacks=none", "tracking=none"]
    ours = ["-m", "regente", "train", "digits_cnn", *common, "+callbacks.mark._target_=marks.Mark"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ways = {
        "plain": [*launcher, "plain.py", json.dumps(words)],
        "ours": [*ours, "trainer.devices=2", "trainer.strategy=ddp"],
    }
    ways["one step per call"] = [*ways["ours"], "trainer.steps_per_call=1"]
    env, files = {"OMP_NUM_THREADS": "1"}, {"marks.py": MARKS, "plain.py": PLAIN}
    # full batches alone: what an epoch has more, the ranks share out evenly and one process does not; and SGD, since
    # Adam makes steps of full size of gradients that are nothing but rounding
    full = [
        "optimizer=sgd",
        "optimizer.lr=0.01",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "trainer.max_epochs=1",
        "trainer.steps_per_call=1",
        f"trainer.limit_train_batches={1257 // (2 * BATCH)}",
    ]
    same = {
        "one process": [*ours, *full, f"data.batch_size={2 * BATCH}"],
        "two ranks": [*ways["ours"], *full],
    }
    counted = interleave(ways, 1, {**env, "COUNT": "1"}, files)
    alone = interleave(same, 1, env, files)
    found = interleave(ways, ROUNDS, env, files)
    first = {name: rows[0]["weights"] for name, rows in found.items()}
    assert first["ours"] == first["one step per call"] == first["plain"], "the weights differ"
    one, two = (
        np.frombuffer(base64.b64decode(rows[0]["weights"]), dtype=np.float32) for rows in alone.values()
    )
    far = float(np.abs(one - two).max())
    assert far < BOUND, f"{far} from the weights of one process"
    for rows in found.values():
        for row in rows:
            row["rate"] = row["steps"] * (EPOCHS - 1) / EPOCHS / row["seconds"]
    table(found, "rate", "steps/s", "plain")
    for name, rows in counted.items():
        steps = rows[0]["steps"] * (EPOCHS - 1) / EPOCHS
        print(
            f"{name:<28}"
            + ", ".join(f"{k} {n} ({n / steps:.2f} a step)" for k, n in rows[0]["collectives"].items())
        )
    print(f"weights of all three equal to the bit; one process with batches of {2 * BATCH}: within {far:.1e}")


if __name__ == "__main__":
    main()
