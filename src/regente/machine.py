"""What this machine can do of what the trainer is asked for."""

import os
from pathlib import Path
from typing import Any

from regente.errors import MachineError

HALF = {"16", "16-mixed", "16-true"}


def require(trainer: dict[str, Any]) -> None:
    """Raise MachineError for devices that are not there; torch is asked only about those that may not be."""
    name = str(trainer.get("accelerator", "auto"))
    if name == "tpu":
        raise MachineError(
            "trainer.accelerator=tpu: TPU support (torch_xla) is not installed; use trainer=auto"
        )
    if name in ("auto", "cpu"):
        return
    wanted = ranks_here(trainer)
    visible = _visible(name)
    if wanted > visible:
        remedy = f"use trainer.devices={visible}" if visible else "use trainer=cpu"
        asked = f"trainer.accelerator={name} trainer.devices={trainer.get('devices', 1)}"
        raise MachineError(f"{asked}: {wanted} asked for, {visible} visible ({_drivers()}); {remedy}")


def fit_trainer(trainer: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The trainer's settings as this machine can carry them out, and a line for each thing that is done otherwise.

    Raises:
        MachineError: for devices that are not there.
    """
    require(trainer)
    accelerator = str(trainer.get("accelerator", "auto"))
    if accelerator in ("auto", "gpu"):
        accelerator = next((name for name in ("cuda", "mps") if _visible(name)), "cpu")
    settings, notes = {**trainer, "accelerator": accelerator}, []
    settings.pop("max_restarts", None)  # the agent's
    if accelerator == "cpu" and str(trainer.get("precision")) in HALF:
        settings["precision"] = "bf16-true" if str(trainer["precision"]) == "16-true" else "bf16-mixed"
        slow = "" if has_bfloat16() else "; this CPU only emulates it, precision=32 is several times faster"
        notes.append(f"precision={trainer['precision']} on a CPU: trained in bfloat16{slow}")
    strategy = str(trainer.get("strategy", "auto"))
    if strategy != "auto" and world_size(trainer) == 1 and not strategy.startswith("single"):
        notes.append(f"strategy={strategy} with one device only adds work; trainer.devices=N would use N")
    return settings, notes


def world_size(trainer: dict[str, Any]) -> int:
    """How many processes the run takes on all its machines; `auto` and -1 count this machine's GPUs."""
    return ranks_here(trainer) * int(trainer.get("num_nodes") or 1)


def ranks_here(trainer: dict[str, Any]) -> int:
    """How many processes the run takes on this machine."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        return max(1, _visible(str(trainer.get("accelerator", "auto"))))
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    return int(devices)


def cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its container."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            free = min(free, max(1, int(limit) // int(period)))
    return free


def _visible(accelerator: str) -> int:
    """How many devices of a kind this process may use."""
    if accelerator == "cpu":
        return 1
    import torch

    if accelerator == "mps" or (accelerator in ("auto", "gpu") and not torch.cuda.is_available()):
        return int(torch.backends.mps.is_available())
    return torch.cuda.device_count()


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself; without, a step of the CNN takes eight times as long."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return True  # macOS: Apple's CPUs since the M2 do
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo.read_text().split()))


def _drivers() -> str:
    import torch

    built = f"torch {torch.__version__} built for " + (
        f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
    )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"CUDA_VISIBLE_DEVICES={hidden!r}, {built}" if hidden is not None else built
