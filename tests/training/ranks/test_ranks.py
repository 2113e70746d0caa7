"""Several ranks of one job: real processes on gloo, real kills."""

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from regente.data.core.batches import Batches
from regente.data.core.sources import Split
from regente.training.callbacks.rank_sync import RankSync
from regente.training.ranks.strategies import DDP, repeated
from tests import conftest
from tests.conftest import Ended
from tests.training.test_fit import jobs, own_project, query, until
from tests.training.test_own_parts import own_parts

Run = Callable[..., Ended]
TWO = ["trainer=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
FAST = [
    "digits_mlp", *TWO, "trainer.max_epochs=2", "data.batch_size=128", "tracking.log_model=none",
]  # fmt: skip
ENDLESS = ["digits_mlp", *TWO, "trainer.max_epochs=100000", "tracking.log_model=none"]
FAILS = '''
import os, signal
from pytorch_lightning import Callback

class Fail(Callback):
    """Fails once, on one rank before one step of the first restart."""

    def __init__(self, rank, step, how):
        self.rank, self.step, self.how = rank, step, how

    def on_train_batch_start(self, trainer, module, batch, index):
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            if self.how == "raise":
                raise KeyError("boom")
            os.kill(os.getpid(), signal.SIGKILL)
'''


def started_training(project: Path, process: ForkServerProcess, least: int = 3) -> list[psutil.Process]:
    """All processes below a driver, once its ranks train: agent, ranks, shipper."""
    until(lambda: any('"train/loss"' in file.read_text() for file in project.rglob("journal.jsonl")))
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) >= least
    return found


def none_left(found: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in found)


@pytest.mark.usefixtures("store")
def test_a_sweep_of_two_ranks_each_is_a_run_for_each_job_and_no_more(regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, "-m", "optimizer.lr=1e-3,1e-2")
    assert ended.code == 0, ended.err
    outputs = [file.read_text() for file in project.rglob("stdout.log")]
    assert [output.count("cpu x 2") for output in outputs] == [1, 1]
    assert ["best epoch" in output for output in outputs] == [True, True]
    assert query(project, "select status, count(*) from runs group by status") == [("FINISHED", 3)]
    parents = query(
        project, "select value, count(*) from tags where key = 'mlflow.parentRunId' group by value"
    )
    assert [number for _, number in parents] == [2]
    assert len(jobs(project)) == 2
    assert {path.name for path in project.iterdir() if path.is_dir()} <= {"runs", "mlartifacts", "cache"}
    assert all((job / "logs" / "rank-1.log").is_file() for job in jobs(project))


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_the_rank_that_fails_says_why_and_nobody_else_speaks(regente: Run, project: Path) -> None:
    (project / "fails.py").write_text(FAILS)
    fail = "+callbacks.fail={_target_: fails.Fail, rank: 1, step: 3, how: raise}"
    ended = regente("train", *FAST, fail, cold=True)
    assert ended.code == 1
    line = FAILS.splitlines().index('                raise KeyError("boom")') + 1
    assert ended.err.splitlines() == [f"{project / 'fails.py'}:{line}: KeyError: 'boom'"]
    # rank 0 may be stopped while it waits for the store
    until(lambda: query(project, "select status from runs") == [("FAILED",)])
    (job,) = jobs(project)
    assert "KeyError: 'boom'" in (job / "traceback.txt").read_text()


@pytest.mark.usefixtures("store")
def test_sigterm_to_the_driver_ends_all_ranks_at_the_same_step(
    start: Callable[..., ForkServerProcess], project: Path
) -> None:
    process = start("train", *ENDLESS)
    found = started_training(project, process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    until(lambda: query(project, "select status from runs") == [("KILLED",)])
    until(lambda: none_left(found))


UNEVEN = """
import os, time, torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, Dataset

class Slow(Dataset):
    def __init__(self, batches):
        self.batches = batches
    def __len__(self):
        return 4 * self.batches
    def __getitem__(self, index):
        time.sleep(0.1)
        return torch.ones(4), torch.tensor(index % 2)

class Data(LightningDataModule):
    def __init__(self, num_classes, input_shape):
        super().__init__()
    def train_dataloader(self):
        return DataLoader(Slow(2), batch_size=4)
    def val_dataloader(self):
        return DataLoader(Slow(2 + 4 * int(os.environ["RANK"])), batch_size=4)

class Task(LightningModule):
    def __init__(self, model, optimizer, scheduler, monitor):
        super().__init__()
        self.net, self.make = torch.nn.Linear(4, 2), optimizer
    def _loss(self, batch):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def training_step(self, batch, index):
        return self._loss(batch)
    def validation_step(self, batch, index):
        self.log("val/loss", self._loss(batch), sync_dist=True)
    def configure_optimizers(self):
        return self.make(self.parameters())
"""
UNEVEN_EXPERIMENT = """# A test's
defaults:
  - /train
  - override /data: own
  - override /task: own
  - override /model: mlp
  - _self_
monitor: {metric: val/loss, mode: min}
trainer: {max_epochs: 2, use_distributed_sampler: false}
"""


WORKERS = UNEVEN.replace(
    "return DataLoader(Slow(2), batch_size=4)",
    """import multiprocessing
        open(f"method-{os.environ['RANK']}", "w").write(multiprocessing.get_start_method())
        same = lambda batch: torch.utils.data.default_collate(batch)
        return DataLoader(Slow(2), batch_size=4, num_workers=1, collate_fn=same)""",
)


@pytest.mark.slow
def test_the_workers_of_a_loader_start_in_several_ranks_as_in_one(regente: Run, project: Path) -> None:
    own_parts(project, WORKERS, UNEVEN_EXPERIMENT)
    ended = regente("train", "own", *TWO, "tracking=none", cold=True, timeout=200)
    assert ended.code == 0, ended.err
    usual = multiprocessing.get_context().get_start_method()
    assert [file.read_text() for file in project.glob("method-?")] == [usual] * 2


def test_ranks_may_validate_on_different_numbers_of_batches(regente: Run, project: Path) -> None:
    own_parts(project, UNEVEN, UNEVEN_EXPERIMENT)
    ended = regente("train", "own", *TWO, "tracking=none", timeout=100)
    assert ended.code == 0, ended.err


COUNTED = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(100.0).view(100, 1))

class Data(LightningDataModule):
    def __init__(self, num_classes, input_shape):
        super().__init__()
    def train_dataloader(self):
        return DataLoader(torch.ones(16, 1), batch_size=8)
    def val_dataloader(self):
        return DataLoader(torch.arange(77.0).view(77, 1), batch_size=20)  # 20 and 19 on rank 0, 20 and 18 on rank 1
    def test_dataloader(self):
        return DataLoader(Stream(), batch_size=8)

class Task(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
    def training_step(self, batch, index):
        return self.net(batch).square().mean()
    def validation_step(self, batch, index):
        self.log("val_mean", batch.mean(), sync_dist=True)
        self.log("val_share", batch.mean())
        self.log("val_count", float(len(batch)), reduce_fx="sum", sync_dist=True)
    def test_step(self, batch, index):
        self.log("count", float(len(batch)), reduce_fx="sum", sync_dist=True)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


def test_the_loaders_of_a_user_are_evaluated_once_and_what_is_not_is_said(
    regente: Run, project: Path
) -> None:
    experiment = UNEVEN_EXPERIMENT.replace("  - override /model: mlp\n", "").replace("val/loss", "val_mean")
    own_parts(
        project, COUNTED, experiment.replace("max_epochs: 2, use_distributed_sampler: false", "max_epochs: 1")
    )
    ended = regente("train", "own", *TWO, "tracking=none")
    assert ended.code == 0, ended.err
    metrics = json.loads((jobs(project)[0] / "result.json").read_text())["metrics"]
    assert (metrics["val_count"], metrics["val_mean"]) == (77, 38)
    assert metrics["test/count"] == 200
    assert (
        "test: an IterableDataset is read whole by every rank, unless it takes a share by its rank"
        in ended.out
    )
    assert (
        "val_share: logged without sync_dist=True, so they are means over the samples of rank 0 alone"
        in ended.out
    )


@pytest.mark.parametrize(
    ("number", "size", "own", "twice"),
    [
        (99, 50, False, 0),  # a batch on each rank
        (101, 50, False, 1),  # would be two batches and one
        (1, 50, False, 1),
        (77, 10, True, 1),  # a sampler of the user's own cuts batches in its own way
        (100, 7, False, 0),
    ],
)
def test_the_ranks_evaluate_as_many_batches_of_a_loader(
    number: int, size: int, own: bool, twice: int
) -> None:
    numbers, loaders = [], []
    for rank in range(2):
        strategy: Any = DDP()
        strategy._lightning_module = SimpleNamespace(trainer=SimpleNamespace(training=False))
        sampler = DistributedSampler(range(number), 2, rank, shuffle=False)  # type: ignore[arg-type]
        batches = (OwnBatches if own else BatchSampler)(sampler, size, drop_last=False)
        loader: Any = strategy.process_dataloader(DataLoader(range(number), batch_sampler=batches))  # type: ignore[arg-type]
        loaders.append(list(loader))
        numbers += torch.cat(loaders[rank]).tolist()
        assert repeated(loader) == twice
    assert len(loaders[0]) == len(loaders[1])
    assert (len(numbers), set(numbers)) == (number + twice, set(range(number)))


class OwnBatches(BatchSampler):
    """Cuts batches as it likes."""


def test_samples_that_are_evaluated_twice_are_said_once() -> None:
    notes: list[str] = []
    sync, batches = RankSync(notes.append), Batches(Split(torch.zeros(5, 1), torch.zeros(5)), 1, world_size=2)
    for _ in range(2):
        sync._tell_loaders("val", [batches])
    assert notes == ["val: counted twice, for as many batches on each rank: 1 of the samples"]


def test_no_rank_outlives_a_driver_that_is_killed(
    start: Callable[..., ForkServerProcess], project: Path
) -> None:
    process = start("train", *ENDLESS, "tracking=none")
    found = started_training(project, process)
    process.kill()
    until(lambda: none_left(found), 30)
    assert '"status":"KILLED"' in (jobs(project)[0] / "journal.jsonl").read_text()


def test_a_rank_that_is_killed_is_named(regente: Run, project: Path) -> None:
    (project / "fails.py").write_text(FAILS)
    fail = "+callbacks.fail={_target_: fails.Fail, rank: 1, step: 3, how: kill}"
    ended = regente("train", *FAST, fail, "tracking=none")
    assert ended.code == 1
    assert "rank 1 was killed by SIGKILL" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert '"status":"FAILED"' in (jobs(project)[0] / "journal.jsonl").read_text()
    assert json.loads((jobs(project)[0] / "logs" / "rank-0.json").read_text())["peer_lost"]


AVERAGED = """
import torch
from torchmetrics.classification import MulticlassAccuracy
from regente.tasks.classifier import Classifier

class Averaged(Classifier):
    def __init__(self, model, optimizer, scheduler, monitor):
        super().__init__(model, optimizer, scheduler, monitor)
        self.train_acc, self.losses = MulticlassAccuracy(10), []
    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.train_acc(self(batch[0]), batch[1])
        self.losses.append(loss.detach())
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss
    def on_train_epoch_end(self):
        self.log("mean", torch.stack(self.losses).mean(), sync_dist=True)
        self.losses.clear()
"""


def test_a_rank_that_is_killed_is_started_again_and_the_run_comes_out_the_same(
    regente: Run, project: Path
) -> None:
    (project / "fails.py").write_text(FAILS)
    (project / "averaged.py").write_text(AVERAGED)
    words = ["digits_mlp", *TWO, "trainer.max_epochs=2", "data.batch_size=16", "tracking=none"]
    words += ["trainer.max_restarts=1", "callbacks.resume.every_minutes=0", "trainer.log_every_n_steps=1"]
    words += ["task._target_=averaged.Averaged"]
    found = {}
    for step in (-1, 53):
        before = set(jobs(project))
        fail = f"+callbacks.fail={{_target_: fails.Fail, rank: 1, step: {step}, how: kill}}"
        ended = regente("train", *words, fail)
        assert ended.code == 0, ended.err
        assert ("resumes from step 40" in ended.out) == (step == 53)
        assert "not in the saved state" not in ended.out
        (job,) = set(jobs(project)) - before
        lines = list(map(json.loads, (job / "journal.jsonl").read_text().splitlines()))
        values = [
            (key, line["step"], value)
            for line in lines
            if line["kind"] == "metrics"
            for key, value in line["values"].items()
            if key != "train/samples_per_second"
        ]
        result = json.loads((job / "result.json").read_text())
        state = torch.load(result["best_checkpoint"], weights_only=True)["state_dict"]
        found[step] = sorted(values), result["metrics"], {k: v.tolist() for k, v in state.items()}
        assert [line["status"] for line in lines if line["kind"] == "end"] == ["FINISHED"]
    assert found[-1] == found[53]
    assert {"train_acc", "train_loss_epoch", "mean"} <= {key for key, _, _ in found[53][0]}


NORMED = """
from torch import nn
class Own(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes))
"""


def test_an_evaluation_counts_each_sample_once_also_where_one_rank_has_a_batch_more(
    regente: Run, project: Path
) -> None:
    own_project(project)
    (project / "own_models.py").write_text(NORMED)
    key = np.random.default_rng(0)
    x, y = key.normal(size=(198, 6)).astype(np.float32), key.integers(0, 3, 198)
    parts = {"train": slice(0, 132), "val": slice(132, 165), "test": slice(165, 198)}
    arrays = {f"{name}_{part}": of[rows] for part, rows in parts.items() for name, of in (("x", x), ("y", y))}
    np.savez(project / "rows.npz", **arrays)
    data = ["data=arrays", "data.path=rows.npz", "data.num_classes=3", "data.input_shape=[6]"]
    ended = regente("train", "mine", *data, *TWO, "data.batch_size=16", "tracking=none")
    assert ended.code == 0, ended.err
    assert "batches of 16 on each device, 32 in all" in ended.out
    ended = regente("evaluate", "latest", "trainer.devices=1", "trainer.strategy=auto")
    assert ended.code == 0, ended.err
    assert "equal to the bit" in ended.out


def test_two_ranks_learn_what_one_process_does_with_batches_of_twice_the_size(
    regente: Run, project: Path
) -> None:
    full = [
        "trainer.limit_train_batches=4",
        "tracking=none",
    ]  # the last batch of one process has a sample more
    ways = {
        "one": ["trainer=cpu", "data.batch_size=256"],
        "ddp": [*TWO, "data.batch_size=128"],
        "fsdp": [*TWO, "data.batch_size=128", "trainer.strategy=fsdp"],
    }
    weights, losses = {}, {}
    for name, words in ways.items():
        before = set(jobs(project))
        assert regente("train", "digits_mlp", "trainer.max_epochs=2", *words, *full).code == 0, name
        (job,) = set(jobs(project)) - before
        result = json.loads((job / "result.json").read_text())
        weights[name] = torch.load(result["best_checkpoint"], weights_only=True)["state_dict"]
        lines = map(json.loads, (job / "journal.jsonl").read_text().splitlines())
        losses[name] = [
            v for line in lines if line["kind"] == "metrics" for k, v in line["values"].items() if "loss" in k
        ]
    for name in ("ddp", "fsdp"):
        assert losses[name] == pytest.approx(losses["one"], rel=1e-5), name
        for key, tensor in weights["one"].items():
            assert torch.allclose(weights[name][key], tensor, atol=1e-5), (name, key)


def outer(kind: str, rank: int) -> dict[str, str]:
    """What an outer launcher tells one of two ranks on a machine."""
    port = 28000 + os.getpid() % 1000
    if kind == "srun":
        return {
            "SLURM_JOB_ID": str(port), "SLURM_NTASKS": "2", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0",
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        }  # fmt: skip
    numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return numbers | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}


@pytest.mark.parametrize("kind", ["torchrun", "srun"])
def test_the_ranks_of_an_outer_launcher_make_one_job(
    kind: str, start: Callable[..., ForkServerProcess], project: Path
) -> None:
    both = [start("train", *FAST, "tracking=none", env=outer(kind, rank)) for rank in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0], (project / "err").read_text()
    assert len(jobs(project)) == 1
    result = json.loads((jobs(project)[0] / "result.json").read_text())
    assert result["epochs"] == 2


def test_a_signal_to_the_ranks_of_an_outer_launcher_ends_as_a_signal(
    start: Callable[..., ForkServerProcess], project: Path
) -> None:
    words = ["train", "digits_mlp", *TWO, "trainer.max_epochs=100000", "tracking=none"]
    both = [start(*words, env=outer("torchrun", rank)) for rank in range(2)]
    until(lambda: any('"train/loss"' in (job / "journal.jsonl").read_text() for job in jobs(project)), 120)
    for process in both:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [143, 143], (project / "err").read_text()
    (job,) = jobs(project)
    assert '"status":"KILLED"' in (job / "journal.jsonl").read_text()
    assert list((job / "resume").glob("step-*.ckpt"))


def test_several_machines_need_a_place_to_meet(regente: Run) -> None:
    ended = regente("train", *FAST, "trainer.num_nodes=2")
    assert ended.code == 2
    assert ended.lines == [
        "trainer.num_nodes=2: give trainer.endpoint=HOST:PORT, an address of the first machine, the same on each; "
        "or start it with srun"
    ]


class Machines:
    """Two machines: network namespaces with a cable between them or, where that is not allowed, this one twice."""

    names: tuple[str, ...] = ()
    address = "127.0.0.1"

    def __init__(self) -> None:
        mark = f"rg{os.getpid() % 100_000}"
        a, b = f"{mark}a", f"{mark}b"
        steps = [
            *(f"netns add {name}" for name in (a, b)),
            f"link add {a} netns {a} type veth peer name {b} netns {b}",
            *(f"-n {name} addr add 10.99.0.{number}/24 dev {name}" for number, name in ((1, a), (2, b))),
            *(f"-n {name} link set {device} up" for name in (a, b) for device in (name, "lo")),
        ]
        if shutil.which("ip") and os.geteuid() == 0:
            if all(self.ip(step) for step in steps):
                self.names, self.address = (a, b), "10.99.0.1"
            else:
                self.close((a, b))

    def ip(self, words: str) -> bool:
        return subprocess.run(["ip", *words.split()], capture_output=True, check=False).returncode == 0

    def close(self, names: tuple[str, ...] | None = None) -> None:
        for name in names or self.names:
            self.ip(f"netns del {name}")


def on_machine(namespace: str, *rest: Any) -> None:
    """What `conftest._regente` does, in a network namespace."""
    if namespace:
        with Path(f"/run/netns/{namespace}").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
    conftest._regente(*rest)


@pytest.fixture
def machines(project: Path, warm: ForkServerContext) -> Iterator[Callable[..., list[ForkServerProcess]]]:
    """Start `regente WORDS...` on two machines."""
    both, started = Machines(), []

    def begin(*words: str) -> list[ForkServerProcess]:
        where = f"trainer.endpoint={both.address}:{29000 + os.getpid() % 1000}"
        for name in both.names or ("", ""):
            rest = ((*words, where), str(project), dict(os.environ), False)
            started.append(warm.Process(target=on_machine, args=(name, *rest)))
            started[-1].start()
            time.sleep(0.5)
        return started

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
    both.close()


@pytest.mark.usefixtures("store")
def test_two_machines_train_as_one_job(
    machines: Callable[..., list[ForkServerProcess]], project: Path
) -> None:
    both = machines("train", *FAST, "trainer.devices=1", "trainer.num_nodes=2")
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0], (project / "err").read_text()
    assert (project / "out").read_text().count("best epoch") == 1
    assert query(project, "select status from runs") == [("FINISHED",)]
    assert len(jobs(project)) == 1


def test_a_signal_on_one_machine_ends_the_ranks_of_both(
    machines: Callable[..., list[ForkServerProcess]], project: Path
) -> None:
    both = machines("train", *ENDLESS, "trainer.devices=1", "trainer.num_nodes=2", "tracking=none")
    found = [each for process in both for each in started_training(project, process, 2)]
    assert both[1].pid is not None
    os.kill(both[1].pid, signal.SIGTERM)
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [143, 143]
    until(lambda: none_left(found))
    assert '"status":"KILLED"' in (jobs(project)[0] / "journal.jsonl").read_text()
