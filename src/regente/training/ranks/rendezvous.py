"""How the machines of one job find each other and the job directory."""

import os
import re
import socket
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from regente.errors import ConfigError, MachineError, Problem
from regente.jobs.hardware import world_size
from regente.jobs.job import Job, open_job

ENDPOINT = "REGENTE_ENDPOINT"  # HOST:PORT for the agent
TIMEOUT = timedelta(minutes=10)  # for the first machine, and for its job directory
LEAVE_TIMEOUT = timedelta(seconds=20)  # for the other machines, before the first one closes the store


def endpoint(trainer: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> str:
    """HOST:PORT where the machines of a job meet, empty for one machine; derived from the environment under srun.

    Raises:
        ConfigError: when there are several machines and no endpoint.
    """
    machines = int(trainer.get("num_nodes") or 1)
    if machines == 1:
        return ""
    if given := trainer.get("endpoint"):
        return str(given)
    if environ.get("SLURM_NTASKS") == str(machines) and "SLURM_PROCID" in environ:
        return "{}:{}".format(*slurm_master(environ))
    what = "give trainer.endpoint=HOST:PORT, an address of the first machine, the same on each; or start it with srun"
    raise ConfigError([Problem(f"trainer.num_nodes={machines}", what)])


def slurm_master(environ: Mapping[str, str]) -> tuple[str, int]:
    """The first machine of a Slurm job, and a port for this job step."""
    nodes = environ.get("SLURM_STEP_NODELIST") or environ["SLURM_NODELIST"]
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    assert found is not None
    step = int(environ.get("SLURM_STEP_ID", 0))
    return found[1] + (found[2] or ""), 20_000 + (int(environ["SLURM_JOB_ID"]) * 7 + step) % 10_000


def is_rank(trainer: Mapping[str, Any]) -> bool:
    """Whether an outer launcher (torchrun, srun with a task for each device) made this process one of the ranks.

    The variables of srun are translated to those of torchrun.
    """
    ranks, env = world_size(dict(trainer)), os.environ
    if ranks == 1:
        return False
    tasks = env.get("SLURM_NTASKS")
    if tasks == str(ranks) != str(trainer.get("num_nodes") or 1) and "SLURM_PROCID" in env:
        host, port = slurm_master(env)
        env.update(
            RANK=env["SLURM_PROCID"], LOCAL_RANK=env["SLURM_LOCALID"], NODE_RANK=env["SLURM_NODEID"],
            WORLD_SIZE=tasks, MASTER_ADDR=host, MASTER_PORT=str(port),
        )  # fmt: skip
        del env["SLURM_NTASKS"]
    return env.get("WORLD_SIZE") == str(ranks) and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= env.keys()


class Rendezvous:
    """The store at an endpoint, hosted by the first process on the machine of the endpoint."""

    def __init__(self, host: str, port: int, first: bool) -> None:
        from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

        where = f"{host}:{port}"
        try:
            self.store: Any = None
            if first:
                try:
                    self.store = TCPStore(
                        host, port, is_master=True, wait_for_workers=False, timeout=TIMEOUT, multi_tenant=True
                    )
                except DistError:  # another driver of this job on this machine hosts it
                    first = False
            if self.store is None:
                self.store = TCPStore(host, port, timeout=TIMEOUT)
        except DistError as error:
            raise MachineError(
                f"{where}: no answer ({_first_line(error)}); start the first machine"
            ) from error
        self.first, self.where = first, where

    def receive_job(self) -> Job:
        """The job that the first machine has made.

        Raises:
            MachineError: when the first machine sends none, or its job directory is not seen from this machine.
        """
        try:
            path = Path(self.store.get("job").decode())
        except RuntimeError as error:
            raise MachineError(
                f"{self.where}: the first machine sent no job ({_first_line(error)})"
            ) from error
        if not (path / "job.json").is_file():
            what = "not found on this machine; the project must be in a folder that all machines share"
            raise MachineError(f"{path}: {what}")
        return open_job(path)

    def send_job(self, job: Job) -> None:
        """Tell the other machines which job directory to use."""
        self.store.set("job", str(job.path))

    def leave(self, machines: int) -> None:
        """Sign off; the first machine waits up to LEAVE_TIMEOUT for the others."""
        try:
            if self.store.add("left", 1) == machines:
                self.store.set("all left", "1")
            if self.first:
                self.store.wait(["all left"], LEAVE_TIMEOUT)
        except RuntimeError:
            return


@cache
def rendezvous(where: str) -> Rendezvous:
    """The rendezvous at HOST:PORT, kept until this process ends."""
    host, _, port = where.rpartition(":")
    return Rendezvous(host.strip("[]"), int(port), first=_is_here(host.strip("[]")))


def receive_job(trainer: Mapping[str, Any]) -> Job | None:
    """The job that another machine or rank has made for this process; None where this process makes it."""
    found = _rendezvous_of(trainer)
    return None if found is None or found.first else found.receive_job()


def send_job(trainer: Mapping[str, Any], job: Job) -> None:
    """Give a job that this process has made to the other machines and ranks, if there are any."""
    if found := _rendezvous_of(trainer):
        found.send_job(job)


def _rendezvous_of(trainer: Mapping[str, Any]) -> Rendezvous | None:
    if is_rank(trainer):
        return _of_ranks()
    return rendezvous(where) if (where := endpoint(trainer)) else None


@cache
def _of_ranks() -> Rendezvous:
    """The rendezvous of ranks that an outer launcher started; its agent or rank 0 hosts the store."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    found = Rendezvous(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        first=not agent and os.environ["RANK"] == "0",
    )
    found.first = os.environ["RANK"] == "0"
    return found


def own_address(where: str) -> str:
    """The address of this machine on the network of the endpoint."""
    host, _, port = where.rpartition(":")
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # UDP: nothing is sent
        return str(probe.getsockname()[0])


def interface(address: str) -> str:
    """The name of the network interface that has an address; empty if it is not known."""
    import psutil

    return next(
        (
            name
            for name, found in psutil.net_if_addrs().items()
            if address in {each.address for each in found}
        ),
        "",
    )


def _is_here(host: str) -> bool:
    """Whether an address is that of this machine: only then can it be bound."""
    try:
        with socket.create_server((host, 0)):
            return True
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
