"""Settings that change when a run is resumed, whatever part of the config they come from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LinearLR, MultiStepLR, SequentialLR
from torch.utils.data import DataLoader

from regente.training.callbacks.changed_settings import ChangedSettings
from regente.training.checkpoints.initialization import initialize_from


class Lit(LightningModule):
    """A task with an optimizer, a schedule and a loss of its own."""

    def __init__(
        self,
        lr: float = 1.0,
        momentum: float = 0.5,
        gamma: float = 0.5,
        milestone: int = 3,
        weight: tuple[float, ...] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(1, 2)
        self.criterion = nn.CrossEntropyLoss(weight=torch.tensor(weight))

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        loss: Tensor = self.criterion(self.net(batch), torch.zeros(len(batch), dtype=torch.long))
        return loss

    def configure_optimizers(self) -> Any:
        own = self.hparams
        rows = [{"params": [self.net.weight]}, {"params": [self.net.bias], "lr": 0.1}]
        optimizer = SGD(rows, lr=own.lr, momentum=own.momentum)
        late = MultiStepLR(optimizer, [own.milestone], gamma=own.gamma)
        chain = SequentialLR(optimizer, [ExponentialLR(optimizer, own.gamma), late], milestones=[10])
        return [optimizer], [chain]


class Seen(Callback):
    """What the first step of a fit is taken with."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if hasattr(self, "rates"):
            return
        groups = trainer.optimizers[0].param_groups
        first, late = trainer.lr_scheduler_configs[0].scheduler._schedulers
        self.rates = [group["lr"] for group in groups]
        self.bases = first.base_lrs
        self.momentum = {group["momentum"] for group in groups}
        self.gamma, self.milestones = first.gamma, dict(late.milestones)
        self.weight = pl_module.criterion.weight.tolist()


def fit(task: Lit, epochs: int, state: Path | None = None, rate: float = 1.0) -> tuple[Trainer, Seen]:
    seen = Seen()
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[ChangedSettings(rate), seen], **quiet)
    trainer.fit(task, DataLoader(torch.zeros(2, 1), batch_size=2), ckpt_path=state)
    return trainer, seen


@pytest.mark.filterwarnings("ignore")
def test_a_change_of_a_tasks_own_settings_reaches_optimizer_schedule_and_loss(tmp_path: Path) -> None:
    trainer, seen = fit(Lit(), 1)
    assert (seen.rates, seen.bases) == ([1.0, 0.1], [1.0, 0.1])
    state = tmp_path / "a.ckpt"
    trainer.save_checkpoint(state)
    _, same = fit(Lit(), 2, state)
    assert (same.rates, same.bases, same.momentum) == ([0.5, 0.05], [1.0, 0.1], {0.5})
    changed = Lit(lr=0.2, momentum=0.25, gamma=0.75, milestone=4, weight=(1.0, 9.0))
    trainer, found = fit(changed, 2, state)
    assert found.rates == pytest.approx([0.1, 0.05])  # the second group has a rate of its own
    assert found.bases == pytest.approx([0.2, 0.1])
    assert (found.momentum, found.gamma, found.milestones) == ({0.25}, 0.75, {4: 1})
    assert found.weight == [1.0, 9.0]
    trainer.save_checkpoint(state)
    _, again = fit(changed, 3, state, rate=0.5)  # nothing has changed since
    assert again.rates == pytest.approx([0.1 * 0.75 * 0.5, 0.05 * 0.75 * 0.5])
    task = Lit(weight=(3.0, 3.0))
    initialize_from(task, state)  # a new training has the loss of its own config
    assert task.criterion.weight.tolist() == [3.0, 3.0]
    assert torch.equal(task.net.weight, changed.net.weight)


def test_rates_of_zero_are_raised_for_each_group_and_in_the_schedule() -> None:
    def made(*rates: float) -> tuple[SGD, LambdaLR]:
        rows = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
        optimizer = SGD(rows, lr=1.0)
        return optimizer, LambdaLR(optimizer, lambda step: 1 / (step + 1))

    (old, schedule), (new, other), change = made(0.0, 0.5, 0.0), made(0.1, 0.5, 0.01), ChangedSettings()
    change.see([old], [schedule])
    change.before = {**change.made}
    change.see([new], [other])
    change.apply([old], [schedule])
    assert [group["lr"] for group in old.param_groups] == [0.1, 0.5, 0.01]
    old.step()
    schedule.step()
    assert [group["lr"] for group in old.param_groups] == pytest.approx([0.05, 0.25, 0.005])


def test_a_schedule_that_starts_at_zero_leads_from_its_own_start() -> None:
    def made(rate: float) -> tuple[SGD, LinearLR]:
        optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=rate)
        return optimizer, LinearLR(optimizer, start_factor=1e-9, total_iters=2)

    (old, schedule), (new, other), change = made(1.0), made(3.0), ChangedSettings()
    change.see([old], [schedule])
    change.before = {**change.made}
    change.see([new], [other])
    old.step()
    schedule.step()
    change.apply([old], [schedule])
    assert old.param_groups[0]["lr"] == pytest.approx(1.5)
    assert schedule.base_lrs == [3.0]
