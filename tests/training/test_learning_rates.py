"""Schedules: chains, how often they step, and rates that change outside of them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, LinearLR, SequentialLR

from regente.training.assemble import make_scheduler
from regente.training.learning_rates import Schedule, scale_rates

LINEAR = partial(LinearLR, start_factor=0.5, total_iters=2)


def rates(schedule: Any, optimizer: SGD, number: int) -> list[float]:
    found = []
    for _ in range(number):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_chain_of_schedules_is_made_for_one_optimizer_and_can_be_scaled_in_its_middle() -> None:
    optimizer, again = (SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2))
    make = Schedule(SequentialLR, schedulers=[LINEAR, partial(ExponentialLR, gamma=0.5)], milestones=[2])
    whole = rates(make(optimizer), optimizer, 6)
    assert whole == [0.5, 0.75, 1.0, 0.5, 0.25, 0.125]
    scaled = make(again)
    rates(scaled, again, 1)
    scale_rates([again], [scaled], lambda group: 0.5)
    assert rates(scaled, again, 5) == [rate / 2 for rate in whole[1:]]


def test_schedules_that_multiply_are_a_chain_too() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    chain = Schedule(ChainedScheduler, schedulers=[partial(ConstantLR, factor=0.5, total_iters=1), LINEAR])(
        optimizer
    )
    assert rates(chain, optimizer, 3) == pytest.approx([0.25, 0.75, 1.0])


def test_how_often_a_schedule_steps_is_a_setting() -> None:
    node = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 0.5}
    made = make_scheduler({**node, "interval": "step", "frequency": 2})
    assert (made.interval, made.frequency, made.keywords) == ("step", 2, {"gamma": 0.5})
