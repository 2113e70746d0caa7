"""What this machine can do of what the trainer is asked for."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regente.errors import MachineError

HALF = {"16", "16-mixed", "16-true"}


def require(trainer: dict[str, Any]) -> None:
    """Raise MachineError for devices and packages that are not there; torch is asked only about those that may not be."""
    name = str(trainer.get("accelerator", "auto"))
    if name == "tpu":
        raise MachineError(
            "trainer.accelerator=tpu: TPU support (torch_xla) is not installed; use trainer=auto"
        )
    precision = str(trainer.get("precision"))
    if precision.startswith("transformer-engine") and find_spec("transformer_engine") is None:
        what = "needs the package transformer_engine and an NVIDIA GPU of 2022 or later; use bf16"
        raise MachineError(f"trainer.precision={precision}: {what}")
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
    if accelerator == "cpu" and str(trainer.get("devices")) in ("auto", "-1"):
        settings["devices"] = 1  # of which Lightning knows no such number
    settings["precision"], note = fit_precision(trainer.get("precision"), accelerator)
    notes += [note] if note else []
    strategy = str(trainer.get("strategy", "auto"))
    if strategy != "auto" and world_size(trainer) == 1 and not strategy.startswith("single"):
        notes.append(f"strategy={strategy} with one device only adds work; trainer.devices=N would use N")
    return settings, notes


def fit_precision(precision: Any, accelerator: str) -> tuple[Any, str]:
    """The precision that a device can carry out, and a line where that is not what was asked or is slow.

    Raises:
        MachineError: where there is none.
    """
    asked = str(precision)
    if asked in ("64", "64-true") and accelerator == "mps":
        raise MachineError(f"trainer.precision={asked}: Apple's GPU has no float64; use trainer=cpu, or 32")
    if accelerator == "cpu" and (asked in HALF or asked.startswith("bf16")):
        slow = "" if has_bfloat16() else "this CPU only emulates it, precision=32 is several times faster"
        if asked not in HALF:
            return precision, f"precision={asked}: {slow}" if slow else ""
        note = f"precision={asked} on a CPU: trained in bfloat16" + (f"; {slow}" if slow else "")
        return "bf16-true" if asked == "16-true" else "bf16-mixed", note
    if accelerator == "cuda" and asked.startswith("bf16"):
        import torch

        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return precision, f"precision={asked}: this GPU only emulates bfloat16; 16 is faster"
    return precision, ""


def world_size(trainer: dict[str, Any]) -> int:
    """How many processes the run takes on all its machines; `auto` and -1 count this machine's GPUs."""
    return ranks_here(trainer) * int(trainer.get("num_nodes") or 1)


def ranks_here(trainer: dict[str, Any]) -> int:
    """How many processes the run takes on this machine."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return len(devices)
    if all_devices(trainer):
        return max(1, _visible(str(trainer.get("accelerator", "auto"))))
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    return int(devices)


def all_devices(trainer: dict[str, Any]) -> bool:
    """Whether `trainer.devices` stands for all devices there are."""
    return trainer.get("devices", 1) in ("auto", -1, "-1")


def ranks_without_torch(trainer: dict[str, Any]) -> int:
    """How many processes a run takes on one machine; 1 where that depends on the devices of another process or machine."""
    return 1 if all_devices(trainer) else ranks_here(trainer)


def cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its container."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            free = min(free, max(1, int(limit) // int(period)))
    return free


def threads_each(processes: int) -> int:
    """Threads for each of so many processes side by side: their share of the cores, or OMP_NUM_THREADS if that is less.

    More than there are cores wait for each other: two jobs of two threads on two cores take twenty times as long.
    """
    share = max(1, cores() // processes)
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(share, max(1, int(asked))) if asked.isdigit() else share


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
