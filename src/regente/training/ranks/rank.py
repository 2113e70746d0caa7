"""The processes (ranks) of one job: which one this is, and how each of them ended."""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from regente.errors import Stopped
from regente.jobs.exit_status import ExitStatus
from regente.jobs.job import Job, write_json

# Exit codes that a restart would not change: the request, the machine, the data, ..., a signal
FINAL = {2, 3, 4, 5, 6, 7, 129, 130, 143}
# Messages of torch's collectives when another rank is gone
PEER_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Read error",
    "remote process exited",
)


@dataclass(frozen=True)
class Rank:
    """One of the processes of a job, from the environment that the agent or an outer launcher made."""

    number: int
    of: int
    local: int  # number on its machine
    restart: int  # restarts so far
    max_restarts: int  # restarts that are allowed
    agent: bool  # whether Regente's own agent started it, which also reports how it ended

    def starts_again(self, ending: ExitStatus) -> bool:
        """Whether the agent restarts the ranks after this exit status."""
        return self.restart < self.max_restarts and ending.exit_code not in {0, *FINAL}

    @property
    def log(self) -> str:
        """The name of the file of its output, under `logs` in the job directory."""
        return f"rank-{self.number}.log"


def this_rank() -> Rank:
    """The rank that this process is."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    return Rank(
        number("RANK", 0),
        number("WORLD_SIZE", 1),
        number("LOCAL_RANK", 0),
        number("TORCHELASTIC_RESTART_COUNT", 0),
        number("TORCHELASTIC_MAX_RESTARTS", 0),
        "REGENTE_AGENT" in os.environ,
    )


@dataclass(frozen=True)
class RankExit:
    """How a rank ended, in a file for the others; `peer_lost`: only because another rank was gone."""

    rank: int
    restart: int
    at: float
    peer_lost: bool
    ending: ExitStatus

    @property
    def final(self) -> bool:
        """Whether another restart would end the same way."""
        return self.ending.exit_code in FINAL


def record_exit(job: Job, rank: Rank, ending: ExitStatus, *, peer_lost: bool) -> None:
    """Write down how this rank ends."""
    found = RankExit(rank.number, rank.restart, time.time(), peer_lost, ending)
    write_json(logs(job) / f"rank-{rank.number}.json", asdict(found))


def exits(job: Job, restart: int) -> list[RankExit]:
    """How the ranks of a restart ended, in the order of time."""
    found = []
    for file in logs(job).glob("rank-*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        found.append(RankExit(**{**content, "ending": ExitStatus(**content["ending"])}))
    return sorted((each for each in found if each.restart == restart), key=lambda each: each.at)


def first_failure(found: list[RankExit]) -> RankExit | None:
    """The first rank that failed by itself."""
    return next((each for each in found if each.ending.exit_code and not each.peer_lost), None)


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error only reports that another rank is gone."""
    import torch

    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in PEER_LOST)
    )


# seconds: torch's agent reports the first process that it sees ending, which must be the lost one
AGENT_DELAY = 1.0


def shared_exit_status(job: Job, rank: Rank, error: BaseException, ending: ExitStatus) -> ExitStatus:
    """The exit status that this rank reports: its own, or that of the rank that failed first."""
    first = first_failure(exits(job, rank.restart))
    if isinstance(error, Stopped):  # the agent also sends a signal when another rank is gone
        peer_lost = not error.agreed and not stop_signal(job) and (rank.agent or first is not None)
    else:
        peer_lost = is_peer_lost(error)
    if peer_lost:
        ending = first.ending if first else ExitStatus("FAILED", 1, "another rank was lost", ending.trace)
    record_exit(job, rank, ending, peer_lost=peer_lost)
    if peer_lost and first is None:
        time.sleep(AGENT_DELAY)
    return ending


def forget_exits(job: Job) -> None:
    """Remove the exit files of the attempt before."""
    for file in [*logs(job).glob("rank-*.json"), logs(job) / "signal"]:
        file.unlink(missing_ok=True)


def set_stop_signal(job: Job, number: int) -> None:
    """Record that a signal stops the whole job; without this, a rank gets a signal because another is gone."""
    write_json(logs(job) / "signal", number)


def stop_signal(job: Job) -> int:
    """The number of the signal that stops the whole job, or 0."""
    file = logs(job) / "signal"
    return int(file.read_text(encoding="utf-8") or 0) if file.exists() else 0


def logs(job: Job) -> Path:
    """The folder of the ranks' output and exit files."""
    folder = job.path / "logs"
    folder.mkdir(exist_ok=True)
    return folder


def log_to(file: Path) -> None:
    """Append the output of this process to a file, that of libraries in C too."""
    sys.stdout.flush()
    sys.stderr.flush()
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(opened, stream)
    os.close(opened)
