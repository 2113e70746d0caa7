"""How several ranks share a model: what `trainer.strategy=NAME` means."""

from difflib import get_close_matches
from typing import Any

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy, StrategyRegistry

from regente.errors import ConfigError, Problem
from regente.jobs.hardware import world_size

DDP = {"auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"}


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
    if ranks > 1 and name in DDP:
        return {
            "strategy": DDPStrategy(
                gradient_as_bucket_view=True,
                broadcast_buffers=False,
                find_unused_parameters=name.endswith("_true"),
            )
        }
    if ranks > 1 and name == "fsdp":
        return {
            "strategy": ModelParallelStrategy(
                data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False
            )
        }
    return {}
