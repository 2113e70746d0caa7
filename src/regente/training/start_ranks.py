"""`python -m regente.training.start_ranks JOB_DIR` runs this machine's ranks of a job, under torch's elastic agent.

The ranks are forked from a server that has imported torch and Lightning once, so that more ranks or a restart need no
further imports. A rank runs what `python -m regente.training.worker JOB_DIR` runs.
"""

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from regente.errors import MachineError
from regente.jobs.driver import follow_driver
from regente.jobs.exit_status import ExitStatus, say
from regente.jobs.fast_exit import FastExit
from regente.jobs.hardware import ranks_here
from regente.jobs.job import Job, open_job
from regente.jobs.signals import SIGNALS
from regente.jobs.streams import ignore_write_errors
from regente.jobs.trust import run_handed_over
from regente.training.ranks.rank import (
    exits,
    first_failure,
    log_to,
    logs,
    record_exit,
    set_stop_signal,
    stop_signal,
    this_rank,
)
from regente.training.ranks.rendezvous import ENDPOINT, interface, own_address

AGENT = "REGENTE_AGENT"
GRACE = 60  # seconds that the ranks have to save and end after a signal
EXIT_SECONDS = 5  # that the ranks of a machine have to end after a signal on another machine
METHOD = "forkserver"  # of multiprocessing, to start the ranks
PRELOAD = ["regente.training.fit"]  # imported by the server before it forks the first rank


def main(path: Path, *, debug: bool) -> int:
    """Run the ranks to their end, restarts included, and return the job's exit code."""
    from regente.config.interpolation import resolve

    job = open_job(path)
    trainer = resolve(job.config)["trainer"]
    os.environ[AGENT] = "1"
    # with a store kept by the agent, restarted ranks would find the addresses of the ranks before them
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(PRELOAD)
        multiprocessing.forkserver.ensure_running()  # it imports while this process imports torch
    ending = run_ranks(job, trainer)
    say(ending, debug=debug)
    return ending.exit_code


def run_ranks(job: Job, trainer: dict[str, Any]) -> ExitStatus:
    """The exit status of the job: that of the rank that failed first."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if not stop_signal(job):
            set_stop_signal(job, number)
        raise SignalException(f"signal {number}", signal.Signals(number))

    for each in SIGNALS:
        signal.signal(each, stop)
    logging.disable()  # the banner of torch's agent
    machines, where = int(trainer.get("num_nodes") or 1), os.environ.get(ENDPOINT, "")
    address = own_address(where) if where else None
    if address and (name := interface(address)):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    settings = LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=ranks_here(trainer),
        run_id=job.path.name,
        rdzv_backend="c10d",
        rdzv_endpoint=where or "localhost:0",
        rdzv_configs={"is_host": False} if where else {},  # the driver hosts the store
        local_addr=address,
        max_restarts=trainer.get("max_restarts") or 0,
        start_method=METHOD,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle="SIGQUIT",  # Regente handles the others
        shutdown_timeout=GRACE,
    )
    if machines > 1:
        threading.Thread(target=_follow_signal, args=[job], daemon=True).start()
    try:
        elastic_launch(settings, run_rank)(str(job.path))
        return ExitStatus("FINISHED", 0)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return _failure(job, codes, settings.max_restarts)
    except SignalException:
        number = signal.Signals(stop_signal(job))
        return ExitStatus("KILLED", 128 + number, f"{number.name}: stopped")
    except RendezvousError as error:
        failed = _failure(job, {}, settings.max_restarts)
        what = f"the {machines} machines did not meet at {where or 'localhost'} ({error})"
        return (
            failed
            if exits(job, settings.max_restarts)
            else ExitStatus("FAILED", MachineError.exit_code, what)
        )
    finally:
        for process in multiprocessing.active_children():  # they are left after a second signal
            process.kill()


def _follow_signal(job: Job) -> None:
    """End after a signal on another machine: else this agent would wait for its ranks to be restarted."""
    while not stop_signal(job):
        time.sleep(1)
    time.sleep(EXIT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _failure(job: Job, codes: dict[int, int], restart: int) -> ExitStatus:
    """The exit status of the first rank that failed in the last restart; without one, how its process ended."""
    left = exits(job, restart)
    if first := first_failure(left):
        return first.ending
    silent = [rank for rank in codes if rank not in {each.rank for each in left}]
    for rank in silent:
        if codes[rank] < 0:
            name = signal.Signals(-codes[rank]).name
            hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
            return ExitStatus("FAILED", 1, f"rank {rank} was killed by {name}{hint}")
    return ExitStatus("FAILED", 1, f"a rank ended without an error; see {logs(job)}")


def run_rank(path: str) -> None:
    """Run one rank in a process forked for it: rank 0 prints, the others write to their log files."""
    from lightning_utilities.core.rank_zero import rank_zero_only

    from regente.training.run import run

    multiprocessing.set_start_method(
        None, force=True
    )  # the system's own, for the workers of a user's data loader
    for each in SIGNALS:  # ignored before the training and while the process ends
        signal.signal(each, signal.SIG_IGN)
    rank, job = this_rank(), open_job(Path(path))
    # Lightning read it when the server imported it
    rank_zero_only.rank = rank.number  # type: ignore[attr-defined]
    if rank.number > 0:
        if rank.local == 0 and rank.restart == 0:
            where = os.environ["MASTER_ADDR"]
            print(f"ranks from {rank.number} on of {rank.of}; the output of rank 0 is on {where}")  # noqa: T201
        log_to(logs(job) / rank.log)
    ignore_write_errors()
    if stop_signal(job):
        sys.exit(128 + signal.SIGTERM)
    before = first_failure(exits(job, rank.restart - 1)) if rank.restart else None
    if before is not None and before.final:  # a restart would end the same way
        record_exit(job, rank, before.ending, peer_lost=True)
        sys.exit(before.ending.exit_code)
    if code := run(job.path).exit_code:
        sys.exit(code)


if __name__ == "__main__":
    leave = FastExit()
    ignore_write_errors()
    follow_driver()
    leave(run_handed_over(Path(sys.argv[1]), partial(main, debug="--debug" in sys.argv)))
