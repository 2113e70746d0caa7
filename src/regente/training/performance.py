"""What makes training faster without being asked and leaves its result as it is, but for rounding."""

import ctypes
import os
import platform
import resource
import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from regente.data.core.cache import cache_dir
from regente.data.core.in_memory import InMemory
from regente.jobs.hardware import cores, world_size
from regente.tasks.supervised import Supervised
from regente.training.ranks.consensus import of_rank_0

FUSED = {f"torch.optim.{name}" for name in ("Adam", "AdamW", "SGD", "Adagrad")}

# mallopt's names for what free() may give back to the kernel, and for what it takes from it piece by piece
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_PIECE = 32 << 20  # bytes: glibc takes no higher threshold
MOST_STEPS = 16  # of the optimizer in one call of Lightning's loop
CALL = 0.1  # seconds that a call may take on a CPU: until then a stop or a line of progress waits
ROOM = 16e6  # bytes of the inputs of a call, as float32
EACH_STEP = [  # hooks of a callback that wants to see every step
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step"),
]
OF_THE_TASK = [  # hooks that Lightning would call for each step, and a group does without
    *(*EACH_STEP, "training_step", "backward", "on_before_batch_transfer", "optimizer_step"),
    *("optimizer_zero_grad", "lr_scheduler_step", "configure_gradient_clipping"),
]
EXACT = {
    "None",
    "32",
    "32-true",
    "64",
    "64-true",
    "bf16",
    "bf16-mixed",
    "bf16-true",
}  # no scaling of gradients


def tune_process(accelerator: str = "auto") -> None:
    """No more threads than this process may use cores, memory that a step has freed is kept for the next one, and a
    job on the CPU sees no GPU.

    By default glibc hands the activations of each step back to the kernel and takes them again, zeroed, page by page:
    for the tutorial's CNN in 32 bits a third of the time. And each step of an optimizer asks whether there is a GPU,
    for which torch, told so by Lightning, loads NVIDIA's library anew: 0.2 ms where there is none.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_PIECE)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    if accelerator == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def peak_megabytes() -> float:
    """The most memory that this process has had: of its GPU if it has used one, else of the machine."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes of what the kernel counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def fused(optimizer: dict[str, Any], trainer: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's node with `fused=True`, one kernel for all parameters, where nothing speaks against it."""
    clipped = bool(trainer.get("gradient_clip_val"))
    mixed = str(trainer.get("precision")).endswith("mixed")  # there Lightning refuses to clip for fused ones
    if (
        optimizer["_target_"] not in FUSED
        or "fused" in optimizer
        or optimizer.get("foreach")
        or (clipped and mixed)
    ):
        return optimizer
    return {**optimizer, "fused": True}


def channels_last(model: nn.Module) -> nn.Module:
    """Weights of 2-d convolutions with the channels innermost: 1.6 times as fast on a CPU, more on Tensor Cores."""
    if any(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    return model


def compiled(model: nn.Module) -> nn.Module:
    """The model compiled in place, with a cache of kernels that outlives the machine's temporary files."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
    model.compile()
    return model


def steps_per_call(
    config: dict[str, Any], data: Any, task: Any, callbacks: Sequence[Callback], group: int | None = None
) -> tuple[int, str]:
    """How many optimizer steps a call of the loop takes, and why it is one where the user wants more.

    `group` is how many it took before the run was interrupted: positions are counted in calls.
    """
    if not isinstance(task, Supervised):
        return 1, ""
    if group is not None:
        return group, ""
    wanted = task.steps_per_call
    why = "" if wanted == 1 else _obstacle(config, data, task, callbacks)
    if wanted == 1 or why:
        return 1, f"task.steps_per_call={wanted}: one step per call, because of {why}" if wanted not in (
            1,
            "auto",
        ) else ""
    return (
        int(of_rank_0("steps_per_call", str(_fitting(config, data, task)))) if wanted == "auto" else wanted
    ), ""


def _obstacle(config: dict[str, Any], data: Any, task: Supervised, callbacks: Sequence[Callback]) -> str:
    """What needs each step to be a call of its own."""
    trainer = config["trainer"]
    harmless = {
        "accumulate_grad_batches": (1,), "gradient_clip_val": (0, 0.0), "max_steps": (-1,), "max_time": (),
        "limit_train_batches": (1.0,), "val_check_interval": (1.0,), "overfit_batches": (0, 0.0), "detect_anomaly": (False,),
        "fast_dev_run": (False,), "profiler": (), "on_nan": ("stop", "rollback"), "strategy": ("auto", "ddp"), "plugins": (),
    }  # fmt: skip
    for key, values in harmless.items():
        given = trainer.get(key)
        # a whole number of batches is no share: 1 is not 1.0
        if given is not None and not any(given == each and type(given) is type(each) for each in values):
            return f"trainer.{key}"
    if str(trainer.get("precision")) not in EXACT:
        return "trainer.precision"
    if not isinstance(data, InMemory):
        return "data"
    if getattr(data, "augment", None) is not None and data.features is None:
        return "data.augment"
    if str(config["scheduler"].get("_target_")).endswith("ReduceLROnPlateau"):
        return "scheduler"
    if any(getattr(type(task), hook) is not getattr(Supervised, hook) for hook in OF_THE_TASK):
        return "task"
    for node in filter(None, config["callbacks"].values()):
        if node.get("every_n_train_steps") or node.get("train_time_interval"):
            return "a checkpoint every so many steps"
    ranks = world_size(trainer)
    return next((type(each).__name__ for each in callbacks if _sees_each_step(each, ranks)), "")


def _sees_each_step(callback: Callback, ranks: int) -> bool:
    # a checkpoint looks at each, and saves by steps only if told to; our own know groups
    if type(callback) is ModelCheckpoint:
        return False
    if type(callback).__module__.startswith("regente.training.callbacks."):
        # Unfreeze brings gradients of ranks together
        return ranks > 1 and type(callback).on_after_backward is not Callback.on_after_backward
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in EACH_STEP)


def _fitting(config: dict[str, Any], data: InMemory, task: Supervised) -> int:
    """As many steps as fit into a tenth of a second and into a few megabytes; a batch is tried out on a CPU."""
    data.prepare_data()
    data.setup("fit")
    x, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    most = min(MOST_STEPS, int(ROOM // max(1, x.nbytes)))
    if config["trainer"]["accelerator"] == "cpu" and most > 1:
        task.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for _ in range(2):  # the first pays for what the second measures
                begun = time.perf_counter()
                task(x)
            forward = time.perf_counter() - begun
        task.train()
        most = min(most, int(CALL / (3 * forward)))  # backward and step take twice as long again
    return max(1, most)
