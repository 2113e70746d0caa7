"""Which GPUs a job gets: the slots of this machine."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from regente.errors import MachineError
from regente.jobs.hardware import all_devices, cores, ranks_here, ranks_without_torch


@dataclass(frozen=True)
class Slot:
    """Room for one job: its GPUs, none for a job on the CPU."""

    gpus: tuple[str, ...] = ()


def slots(
    trainer: dict[str, Any], jobs: int | None, gpus_per_job: int | None, jobs_per_gpu: int
) -> list[Slot]:
    """The slots for jobs with such a trainer: shares of GPUs where there are any that they may use, else cores.

    Raises:
        MachineError: when no job can have as many GPUs as it needs.
    """
    gpus = visible_gpus() if str(trainer.get("accelerator", "auto")) in ("auto", "gpu", "cuda") else []
    if not gpus:
        return [Slot()] * (jobs or max(1, cores() // ranks_without_torch(trainer)))
    each = gpus_per_job or (len(gpus) if all_devices(trainer) else ranks_here(trainer))
    groups = [tuple(gpus[i : i + each]) for i in range(0, len(gpus) - each + 1, each)]
    if not groups:
        raise MachineError(
            f"hydra.launcher.gpus_per_job={each}: {len(gpus)} visible ({','.join(gpus)}); "
            f"use hydra.launcher.gpus_per_job={len(gpus)} or fewer"
        )
    shared = [Slot(group) for _ in range(jobs_per_gpu) for group in groups]  # one on each GPU first
    return shared[:jobs] if jobs else shared


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, else those that nvidia-smi lists. Without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]
