"""Fits the trainer's settings to the devices, cores and precisions of this machine."""

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regente.errors import MachineError

HALF = {"16", "16-mixed", "16-true"}


def require(trainer: dict[str, Any]) -> None:
    """Raise MachineError for missing devices and packages; torch is imported only where one may be missing."""
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
        raise MachineError(f"{asked}: {wanted} requested, {visible} visible ({_drivers()}); {remedy}")


def fit_trainer(trainer: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The trainer's settings for this machine, and a note for each that differs from the request.

    Raises:
        MachineError: when a device is missing.
    """
    require(trainer)
    accelerator = str(trainer.get("accelerator", "auto"))
    if accelerator in ("auto", "gpu"):
        accelerator = next((name for name in ("cuda", "mps") if _visible(name)), "cpu")
    settings, notes = {**trainer, "accelerator": accelerator}, []
    if accelerator == "cpu":  # for which Lightning takes a number, not `auto`, -1 or a list
        settings["devices"] = ranks_here(settings)
    settings["precision"], note = fit_precision(trainer.get("precision"), accelerator)
    notes += [note] if note else []
    strategy = str(trainer.get("strategy", "auto"))
    if strategy != "auto" and world_size(trainer) == 1 and not strategy.startswith("single"):
        notes.append(f"strategy={strategy} with one device only adds work; trainer.devices=N uses N devices")
    return settings, notes


def fit_precision(precision: Any, accelerator: str) -> tuple[Any, str]:
    """The precision for a device, and a note if it differs from the request or is slow.

    Raises:
        MachineError: when the device does not support it.
    """
    asked = str(precision)
    if asked in ("64", "64-true") and accelerator == "mps":
        raise MachineError(f"trainer.precision={asked}: Apple's GPU has no float64; use trainer=cpu, or 32")
    if accelerator == "cpu" and (asked in HALF or asked.startswith("bf16")):
        slow = "" if has_bfloat16() else "this CPU only emulates it; precision=32 is several times faster"
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
    """Number of processes of the run on all machines; `auto` and -1 count the GPUs of this machine."""
    return ranks_here(trainer) * int(trainer.get("num_nodes") or 1)


def ranks_here(trainer: dict[str, Any]) -> int:
    """Number of processes of the run on this machine."""
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


def cores(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Number of cores that this process may use, by its affinity and the quotas of its control groups, such as a container's.

    `cgroups`: where these are; `own`: names those of this process.
    """
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # of a system without them
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                group = cgroups / controllers / path.lstrip("/")
                for each in (group, *group.parents):
                    if each.is_relative_to(cgroups):
                        free = min(free, _quota(each))
    return free


def _quota(group: Path) -> int:
    """Whole cores that a control group of version 2 or 1 may use."""
    with suppress(OSError, ValueError):
        v2 = group / "cpu.max"
        rows = [v2] if v2.is_file() else [group / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
        limit, period = " ".join(row.read_text() for row in rows).split()
        if limit not in ("max", "-1"):
            return max(1, int(limit) // int(period))
    return os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """Threads of each of several parallel processes: its share of the cores, or OMP_NUM_THREADS if that is less.

    Threads beyond the number of cores wait for each other: two jobs of two threads on two cores take twenty times as
    long.
    """
    share = max(1, cores() // processes)
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(share, max(1, int(asked))) if asked.isdigit() else share


def _visible(accelerator: str) -> int:
    """Number of devices of a kind that this process may use."""
    if accelerator == "cpu":
        return 1
    import torch

    if accelerator == "mps" or (accelerator in ("auto", "gpu") and not torch.cuda.is_available()):
        return int(torch.backends.mps.is_available())
    return torch.cuda.device_count()


def has_bfloat16() -> bool:
    """Whether the CPU supports bfloat16; emulation makes a step of the CNN eight times slower."""
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
