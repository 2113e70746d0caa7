"""The processes of one job, as each of them sees itself and the others."""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from regente.errors import Stopped
from regente.jobs.exit_status import ExitStatus
from regente.jobs.job import Job, write_json

# Endings that the next restart would come to as well: the request, the machine, the data, ..., a signal
FINAL = {2, 3, 4, 5, 6, 7, 129, 130, 143}
# How torch's collectives say that another rank went away
LOST = (
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
    local: int  # on its machine
    restart: int  # restarts so far
    max_restarts: int  # restarts that are allowed
    agent: bool  # whether Regente's own agent started it, which says how it ended

    def starts_again(self, ending: ExitStatus) -> bool:
        """Whether the agent starts the ranks anew after this ending."""
        return self.restart < self.max_restarts and ending.exit_code not in {0, *FINAL}

    @property
    def log(self) -> str:
        """The name of what it prints, under `logs` in the job directory."""
        return f"rank-{self.number}.log"


def this_rank() -> Rank:
    """Which one this process is."""

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
    """How a rank ended, as it left word for the others; `lost`: only because another one had gone."""

    rank: int
    restart: int
    at: float
    lost: bool
    ending: ExitStatus

    @property
    def final(self) -> bool:
        """Whether another restart is pointless."""
        return self.ending.exit_code in FINAL


def record_exit(job: Job, rank: Rank, ending: ExitStatus, *, lost: bool) -> None:
    """Write down how this rank ends."""
    word = RankExit(rank.number, rank.restart, time.time(), lost, ending)
    write_json(logs(job) / f"rank-{rank.number}.json", asdict(word))


def exits(job: Job, restart: int) -> list[RankExit]:
    """What the ranks of an restart have left, the first to end first."""
    found = []
    for file in logs(job).glob("rank-*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        found.append(RankExit(**{**content, "ending": ExitStatus(**content["ending"])}))
    return sorted((word for word in found if word.restart == restart), key=lambda word: word.at)


def cause(found: list[RankExit]) -> RankExit | None:
    """The first of those that ended badly by themselves."""
    return next((word for word in found if word.ending.exit_code and not word.lost), None)


def lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another rank has gone."""
    import torch

    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)
    )


HEARD = 1.0  # seconds in which torch's agent, which tells of the first process that ended, hears of the one that was lost


def shared_exit_status(job: Job, rank: Rank, error: BaseException, ending: ExitStatus) -> ExitStatus:
    """The ending that this rank reports: its own, or that of the rank which failed first."""
    first = cause(exits(job, rank.restart))
    if isinstance(error, Stopped):  # a signal may only mean that another rank has gone
        lost = not error.agreed and not stop_signal(job) and (rank.agent or first is not None)
    else:
        lost = lost_peer(error)
    if lost:
        ending = first.ending if first else ExitStatus("FAILED", 1, "another rank was lost", ending.trace)
    record_exit(job, rank, ending, lost=lost)
    if lost and first is None:
        time.sleep(HEARD)
    return ending


def forget_exits(job: Job) -> None:
    """Remove what the ranks of the job's attempt before have left."""
    for file in [*logs(job).glob("rank-*.json"), logs(job) / "signal"]:
        file.unlink(missing_ok=True)


def set_stop_signal(job: Job, number: int) -> None:
    """Mark that a signal asked the whole job to stop; without, it asks a rank only because another has gone."""
    write_json(logs(job) / "signal", number)


def stop_signal(job: Job) -> int:
    """The signal that asked the whole job to stop, or 0."""
    file = logs(job) / "signal"
    return int(file.read_text(encoding="utf-8") or 0) if file.exists() else 0


def logs(job: Job) -> Path:
    """The folder of what the ranks leave."""
    folder = job.path / "logs"
    folder.mkdir(exist_ok=True)
    return folder


def log_to(file: Path) -> None:
    """Send what this process prints, and what libraries in C print, to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(opened, stream)
    os.close(opened)
