"""How several ranks share a model: what `trainer.strategy=NAME` means."""

from difflib import get_close_matches
from typing import Any

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy, StrategyRegistry
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from regente.data.core.batches import Batches
from regente.errors import ConfigError, Problem
from regente.jobs.hardware import world_size

NAMES_OF_DDP = {"auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"}


class EachSampleOnce(Strategy):
    """Evaluates each sample once, where every rank then has as many batches: in each of them a task may wait for the others.

    Lightning's sampler for a user's loader repeats some, for as many samples on each rank.
    """

    def process_dataloader(self, dataloader: object) -> object:
        dataloader = super().process_dataloader(dataloader)
        sampler = sampler_of(dataloader)
        if isinstance(sampler, DistributedSampler) and not sampler.drop_last and not self._trains:
            number: int = len(sampler.dataset)  # type: ignore[arg-type]
            if _as_many_batches(dataloader, number // sampler.num_replicas):
                sampler.total_size = number
                sampler.num_samples = len(range(sampler.rank, number, sampler.num_replicas))
        return dataloader

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Means of whole numbers are not rounded: a mean that is logged divides by that of the batch sizes."""
        if isinstance(tensor, Tensor) and not tensor.is_floating_point() and reduce_op in ("mean", "avg"):
            tensor = tensor.double()
        return super().reduce(tensor, group, reduce_op)  # type: ignore[safe-super]

    @property
    def _trains(self) -> bool:
        module = self.lightning_module
        return module is None or module.trainer.training


class DDP(EachSampleOnce, DDPStrategy):
    """Lightning's DDP, with each sample evaluated once."""


class FSDP(EachSampleOnce, ModelParallelStrategy):
    """torch's second FSDP, with each sample evaluated once."""


def _as_many_batches(loader: Any, fewest: int) -> bool:
    """Whether `fewest` samples, at least one, and one more make as many batches of a loader."""
    batches = getattr(loader, "batch_sampler", None)
    if fewest == 0 or type(batches) is not BatchSampler:  # one of the user's own cuts them in its own way
        return False
    return (fewest + batches.drop_last) % batches.batch_size != 0


def repeated(loader: object) -> int:
    """How many samples the ranks evaluate twice, all together."""
    if isinstance(loader, Batches):
        return loader.repeated
    sampler = sampler_of(loader)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
        return 0
    return sampler.total_size - len(sampler.dataset)  # type: ignore[arg-type]


def sampler_of(loader: object) -> object:
    """What gives a loader the numbers of its samples: a batch sampler of the user's own hides it."""
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    return inner if isinstance(inner, DistributedSampler) else getattr(loader, "sampler", None)


def strategy(trainer: dict[str, Any]) -> dict[str, Strategy]:
    """The trainer's `strategy` argument, where Lightning's own defaults are not used.

    ddp: gradients are views of the buckets that are reduced, which saves a copy in each step. Buffers such as the running
    means of BatchNorm are not broadcast in each step: see callbacks/rank_sync.py. fsdp: torch's second version; each
    layer with parameters of its own is sharded, see `Supervised.configure_model`.

    Raises:
        ConfigError: when Lightning has no strategy of this name.
    """
    given, ranks = trainer.get("strategy", "auto"), world_size(trainer)
    name, known = str(given), ["auto", *StrategyRegistry.available_strategies()]
    if isinstance(given, str) and given not in known:
        close = get_close_matches(given, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "use auto, ddp or fsdp"
        raise ConfigError([Problem(f"trainer.strategy={given}", f"no such strategy; {hint}")])
    if ranks > 1 and name in NAMES_OF_DDP:
        return {
            "strategy": DDP(
                gradient_as_bucket_view=True,
                broadcast_buffers=False,
                find_unused_parameters=name.endswith("_true"),
            )
        }
    if ranks > 1 and name == "fsdp":
        return {
            "strategy": FSDP(
                data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False
            )
        }
    return {}
