"""Where several ranks stop: all at the same place, with no word between them until one is told to."""

import os
import threading
from collections import Counter
from datetime import timedelta

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from regente.training.ranks.rank import this_rank

ASKED = "asked"
PATIENCE = timedelta(seconds=10)  # for the others' promises, from threads that wait for nothing else
ANSWER = timedelta(minutes=10)  # for what another rank has to measure or to read first
NEVER = timedelta(days=1)
ASKED_FOR: Counter[str] = Counter()  # how often, by name
KEPT: list[Store] = []  # else the store would close with the first that is done with it


class Alone:
    """One rank, which agrees with itself."""

    def here(self, number: int) -> int:
        """The signal that it was told, or 0."""
        return number


class Agreement:
    """Counts the places at which a rank may stop, which all ranks come to in the same order.

    A rank that is told to stop says so in the store of the process group, and each rank, by a thread that waits for
    this word, promises to pass no further place. They stop at the place after the last that any of them has passed:
    those that wait there wait for none that waits for them. Until then it costs a comparison for each place.
    """

    def __init__(self, rank: int, of: int) -> None:
        self.rank, self.of = rank, of
        self.passed = 0  # places
        self.promise: int | None = None  # the last place that may be passed before it is known where to stop
        self.stop_at: int | None = None
        self.lock = threading.Lock()
        self.store = connect()
        threading.Thread(target=self._listen, args=(connect(),), daemon=True).start()

    def here(self, number: int) -> int:
        """The signal for which all ranks stop at this place, or 0; `number` is what this rank was told, or 0."""
        if number and self.promise is None:
            self.store.set(ASKED, str(number))
            self._promise(self.store)
        with self.lock:
            if self.promise is None:
                self.passed += 1
                return 0
        if self.stop_at is None:
            self.stop_at = self._last_passed() + 1
        if self.passed + 1 < self.stop_at:
            self.passed += 1
            return 0
        return int(self.store.get(ASKED))

    def _listen(self, store: Store) -> None:
        try:
            store.wait([ASKED], NEVER)
            self._promise(store)
        except DistError:  # the others have gone
            return

    def _promise(self, store: Store) -> None:
        with self.lock:
            if self.promise is not None:
                return
            self.promise = self.passed
        store.set(f"passed/{self.rank}", str(self.promise))

    def _last_passed(self) -> int:
        """The last place that any rank has passed.

        Raises:
            torch.distributed.DistError: when a rank does not answer.
        """
        names = [f"passed/{rank}" for rank in range(self.of)]
        self.store.wait(names, PATIENCE)
        return max(int(value) for value in self.store.multi_get(names))


def of_rank_0(name: str, value: str) -> str:
    """Rank 0's value, on all ranks, and before they are a process group; all ask for the same names in turn."""
    rank = this_rank()
    if rank.of == 1:
        return value
    ASKED_FOR[name] += 1
    key = f"{name}/{ASKED_FOR[name]}"  # a second question is not to get the first answer
    store = connect()
    if rank.number == 0:
        store.set(key, value)
    return store.get(key).decode()


def connect() -> Store:
    """A connection of its own to the store where the process group meets, which rank 0 keeps, or an outer agent."""
    outer = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=os.environ["RANK"] == "0" and not outer,
        wait_for_workers=False,
        multi_tenant=True,  # one in a process, for all that ask
        timeout=ANSWER,
    )
    KEPT.append(store)
    return PrefixStore(f"regente/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
