"""What a task and its callbacks hold outside of every state dict: metrics, counters, lists of an epoch's losses."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from dataclasses import dataclass
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful
from torchmetrics import Metric, MetricCollection

from regente.training.checkpoints.saving import NOT_PLAIN, plain_value
from regente.training.lightning_internals import restore_results, result_states

LIBRARIES = ("regente.training.callbacks.", "pytorch_lightning.")  # whose callbacks save what they need
GENERATORS = torch.Generator | np.random.Generator | Random
OF_LIGHTNING = vars(LightningModule()).keys()


class HeldState:
    """The attributes of the task, its layers and metrics, and of the user's callbacks, that change in a training.

    Tensors, arrays, numbers, text and containers of them are saved, of other objects their state dicts, of generators of
    random numbers their states. Callbacks with a state dict of their own are left alone. Made before the training begins:
    what does not change comes from the config.
    """

    def __init__(self, trainer: Trainer, task: LightningModule) -> None:
        self.trainer, self.task = trainer, task
        self.before = {name: _seen_or_itself(value) for name, value in self._attributes()}

    def state(self) -> dict[str, Any]:
        """What has changed, as plain types, on the CPU but for state dicts.

        `on_device`: names of tensors; `objects`: names of what is not plain.
        """
        values, states, objects = dict[str, Any](), dict[str, Any](), list[str]()
        for name, value in self._attributes():
            if isinstance(value, Stateful | GENERATORS):
                plain, into = _plain(value, _state_of), states
            elif name in self.before and self.before[name] == _seen_or_itself(value):
                continue
            else:
                plain, into = _plain(value), values
            if plain is not NOT_PLAIN:
                into[name] = plain
            elif not callable(value):  # no functions, which Lightning puts into a task too
                objects.append(name)
        on_device = [
            name for name, value in values.items() if any(t.device.type != "cpu" for t in _tensors(value))
        ]
        found = {"values": values, "results": result_states(self.trainer)}
        copies: dict[str, Any] = apply_to_collection(found, (Tensor, np.ndarray), _copy)
        # no copies of state dicts, which may be as large as the model
        return {**copies, "states": states, "on_device": on_device, "objects": objects}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Take over what was saved; returns the names of what could not be."""
        owners = dict(self._owners())
        missing = [*state["objects"]]
        for name, value in state["values"].items():
            owner, _, attribute = name.rpartition(".")
            if owner in owners:
                device = self.trainer.strategy.root_device if name in state["on_device"] else "cpu"
                _put(owners[owner], attribute, move_data_to_device(value, device))
            else:
                missing.append(name)
        for name, value in state["states"].items():
            owner, _, attribute = name.rpartition(".")
            now = getattr(owners.get(owner), attribute, None)
            if isinstance(now, Stateful | GENERATORS):
                _set_state(now, value)
            else:
                missing.append(name)
        restore_results(self.trainer, self.task, state["results"])
        return missing

    def _owners(self) -> Iterator[tuple[str, Any]]:
        """What holds the attributes, by its name."""
        yield from _modules(type(self.task).__name__, self.task)
        known, names = set(self.task.modules()), Counter[str]()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if _saves_itself(callback):
                continue
            names[callback.state_key] += 1
            own = f"{callback.state_key}-{names[callback.state_key]}".removesuffix("-1")
            yield own, callback
            for name, value in list(vars(callback).items()):
                if isinstance(value, nn.Module) and value not in known:
                    yield from _modules(f"{own}.{name}", value)

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        """The values that are looked at, each with its owner's name and its own."""
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        left_out = set(map(id, [*self.task.modules(), *self.trainer.optimizers, *schedules]))
        for owner, holder in self._owners():
            layer = isinstance(holder, nn.Module) and not isinstance(holder, LightningModule | Metric)
            for name, value in list(vars(holder).items()):
                if isinstance(holder, nn.Module) and name in OF_LIGHTNING:
                    continue
                # of a layer its counters: tensors there are buffers, or caches
                if layer and not isinstance(value, int | float) and not isinstance(holder, MetricCollection):
                    continue
                if id(value) not in left_out:
                    yield f"{owner}.{name}", value


def _modules(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for inner, each in module.named_modules(prefix=name):
        if isinstance(each, MetricCollection):
            each.values(copy_state=False)  # metrics that share a state get it
        yield inner, each


def _saves_itself(callback: Callback) -> bool:
    return type(callback).__module__.startswith(LIBRARIES) or any(
        getattr(type(callback), hook) is not getattr(Callback, hook)
        for hook in ("state_dict", "on_save_checkpoint")
    )


def _plain(value: Any, read: Callable[[Any], Any] = lambda value: value) -> Any:
    try:
        return plain_value(read(value))
    except Exception:  # of an object of the user's, or a list that holds itself: it must not end the training
        return NOT_PLAIN


def _state_of(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    return value.getstate() if isinstance(value, Random) else value.state_dict()


def _set_state(value: Any, state: Any) -> None:
    if isinstance(value, torch.Generator):
        value.set_state(state)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = state
    elif isinstance(value, Random):
        value.setstate(state)
    else:
        value.load_state_dict(state)


def _put(owner: Any, name: str, value: Any) -> None:
    """Set an attribute; a container keeps its type, such as defaultdict or deque, and its other owners."""
    now = getattr(owner, name, None)
    if isinstance(now, MutableMapping | MutableSet) and isinstance(value, Mapping | set):
        now.clear()
        now.update(value)  # type: ignore[union-attr]
    elif isinstance(now, MutableSequence) and isinstance(value, list):
        now.clear()
        now.extend(value)
    else:
        setattr(owner, name, value)


@dataclass(eq=False)
class _Seen:
    """An object as it was; a tensor with the number of its changes in place."""

    value: object
    version: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Seen) and self.value is other.value and self.version == other.version


def _seen_or_itself(value: Any) -> Any:
    """A value as it is now, to compare with later; a list that holds itself is only compared with another object."""
    try:
        return _seen(value)
    except Exception:  # of a container of the user's too
        return _Seen(value)


def _seen(value: Any) -> Any:
    if value is None or isinstance(value, int | float | str | bytes):
        return value
    if isinstance(value, dict):  # other mappings may read files, or have values that are missing
        return {key: _seen(each) for key, each in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_seen(each) for each in value]
    if isinstance(value, set):
        return set(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _Seen(value, crc32(value.tobytes()))  # no counter as tensors have
    return _Seen(value, value._version if isinstance(value, Tensor) and not value.is_inference() else 0)


def _copy(value: Tensor | np.ndarray) -> Tensor | np.ndarray:
    # on the CPU: it stays as long as a validation takes
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value.copy()


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    apply_to_collection(value, Tensor, found.append)
    return found
