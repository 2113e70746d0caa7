"""Values that all ranks of a job agree on."""

import os
import time
from collections import Counter
from datetime import timedelta

import torch
from pytorch_lightning import Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from regente.training.ranks.rank import this_rank

INTERVAL = 0.5  # seconds from one exchange to the next, about
MAX_CALLS = 64  # from one exchange to the next: calls may suddenly take longer
TIMEOUT = timedelta(minutes=10)  # for a value that rank 0 has to measure or to read first
QUESTIONS: Counter[str] = Counter()  # values of each name that this process has asked for
OPEN_STORES: list[Store] = []  # a store closes when the last reference to it is gone


class Consensus:
    """The largest number that any rank has, known to all of them at the same call.

    All ranks make the same calls, and in some of them one all_reduce of two numbers. The exchanges are about INTERVAL
    seconds apart, but at least one call and at most MAX_CALLS calls: where a call takes less than INTERVAL / MAX_CALLS
    seconds, they come more often. Each exchange fixes the number of calls to the next one, the same on all ranks, from
    the time that the slowest rank took.
    """

    def __init__(self) -> None:
        self.calls, self.interval = 0, 1  # calls since the last exchange, and from one to the next
        self.exchanged_at = time.monotonic()

    def largest(self, trainer: Trainer, number: int) -> int:
        """The largest of the ranks' numbers in a call with an exchange, 0 in the others."""
        if trainer.world_size == 1:
            return number
        self.calls += 1
        if self.calls < self.interval:
            return 0
        mine = torch.tensor(
            [number, time.monotonic() - self.exchanged_at], device=trainer.strategy.root_device
        )
        torch.distributed.all_reduce(mine, torch.distributed.ReduceOp.MAX)
        largest, seconds = mine.tolist()
        self.interval = max(1, min(MAX_CALLS, int(self.calls * INTERVAL / max(seconds, 1e-6))))
        self.calls, self.exchanged_at = 0, time.monotonic()
        return int(largest)


def of_rank_0(name: str, value: str) -> str:
    """The value of rank 0, on all ranks. Works before they form a process group; all ask for the same names in turn."""
    rank = this_rank()
    if rank.of == 1:
        return value
    QUESTIONS[name] += 1
    key = f"{name}/{QUESTIONS[name]}"  # the answer to an earlier question stays in the store
    store = _connect()
    if rank.number == 0:
        store.set(key, value)
    return store.get(key).decode()


def _connect() -> Store:
    """A connection to the store at MASTER_ADDR, which rank 0 or an outer agent hosts."""
    agent_hosts_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=os.environ["RANK"] == "0" and not agent_hosts_it,
        wait_for_workers=False,
        multi_tenant=True,  # the process group opens it too
        timeout=TIMEOUT,
    )
    OPEN_STORES.append(store)
    return PrefixStore(f"regente/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
