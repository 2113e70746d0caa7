"""Lightning's private parts behave as Regente uses them: each test runs a real training of Lightning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from regente.data.core.batches import Batches
from regente.data.core.seeded_loader import SeededLoader
from regente.data.core.sources import Split
from regente.training import lightning_internals as internals
from regente.training.callbacks.stop_on_signal import may_exchange_weights
from regente.training.lightning_internals import optimizer_step_counter

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, which a run silences too
BATCHES = 5


class Recorder(Callback):
    """What a training did: the batches of each epoch, the validations, `global_step` after each batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, list[float]]] = []
        self.validations: list[int] = []
        self.steps: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        self.batches.append((trainer.current_epoch, index, batch[0].flatten().tolist()))

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.steps.append(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.validations.append(trainer.global_step)


class Task(LightningModule):
    """A linear layer with a plateau schedule; `batches`: the training data."""

    def __init__(self, batches: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.batches = batches or Batches(split(), 2, seed=3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.01)
        schedule = ReduceLROnPlateau(
            optimizer, patience=0, threshold=100.0
        )  # each step of it lowers the rate
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "loss"}}

    def train_dataloader(self) -> Any:
        return self.batches

    def val_dataloader(self) -> Any:
        return Batches(split(), 5)


def split() -> Split:
    x = torch.arange(2.0 * BATCHES).view(-1, 1) / 10
    return Split(x, x)


def trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_epochs": 3, "num_sanity_val_steps": 0, "enable_checkpointing": False} | settings
    return Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[*callbacks], **quiet, **settings
    )


class SaveAt(Callback):
    """Saves a checkpoint at the start of a batch, or in a validation, as ResumeStates does."""

    def __init__(self, epoch: int, batch: int, path: Path) -> None:
        self.epoch, self.batch, self.path = epoch, batch, path

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index) == (self.epoch, self.batch):
            trainer.save_checkpoint(self.path)

    def on_validation_batch_start(
        self, trainer: Trainer, module: Any, batch: Any, index: int, dataloader_idx: int = 0
    ) -> None:
        if (trainer.current_epoch, self.batch) == (self.epoch, BATCHES):
            trainer.save_checkpoint(self.path)


class Restore(Callback):
    def __init__(self, validation_due: bool) -> None:
        self.validation_due = validation_due

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        internals.restore_loops(trainer, validation_due=self.validation_due)
        internals.restore_callback_metrics(trainer, {"loss": torch.tensor(0.0)})


@pytest.mark.parametrize("place", [(0, 2), (1, 0), (1, 4), (0, BATCHES), (2, BATCHES)])
@pytest.mark.parametrize("kind", ["batches", "loader"])
def test_a_restored_training_sees_the_batches_and_validations_that_were_left(
    place: tuple[int, int], kind: str, tmp_path: Path
) -> None:
    def task() -> Task:
        torch.manual_seed(0)
        x = split().x
        loader = SeededLoader(DataLoader(TensorDataset(x, x), 2, shuffle=True), 0, 0)
        return Task(loader if kind == "loader" else None)

    path, whole, rest = tmp_path / "a.ckpt", Recorder(), Recorder()
    undisturbed = task()
    trainer(tmp_path, SaveAt(*place, path), whole).fit(undisturbed)
    assert len(whole.batches) == 3 * BATCHES
    resumed = task()
    at_validation = place[1] == BATCHES
    trainer(tmp_path, Restore(at_validation), rest).fit(resumed, ckpt_path=path, weights_only=True)
    left = [batch for batch in whole.batches if batch[:2] >= place]
    assert rest.batches == left
    assert rest.steps == whole.steps[len(whole.steps) - len(left) :]
    step = place[0] * BATCHES + place[1]
    assert rest.validations == [each for each in whole.validations if each >= step + (not at_validation)]
    assert torch.equal(resumed.layer.weight, undisturbed.layer.weight)
    rates = [each.trainer.optimizers[0].param_groups[0]["lr"] for each in (resumed, undisturbed)]
    assert rates[0] == rates[1] < 0.01  # the plateau schedule took the same steps


def test_lightning_sets_the_epoch_of_loaders_that_name_themselves_as_sampler(tmp_path: Path) -> None:
    x = split().x
    for batches in (Batches(split(), 2, seed=3), SeededLoader(DataLoader(TensorDataset(x, x), 2), 0, 0)):
        epochs: list[int] = []

        def set_epoch(epoch: int, epochs: list[int] = epochs, original: Any = batches.set_epoch) -> None:
            epochs.append(epoch)
            original(epoch)

        batches.set_epoch = set_epoch  # type: ignore[method-assign]
        recorder = Recorder()
        trainer(tmp_path, recorder).fit(Task(batches))
        assert epochs == [0, 1, 2]
        if isinstance(batches, Batches):
            orders = {epoch: [b for e, _, b in recorder.batches if e == epoch] for epoch in range(3)}
            assert orders[0] != orders[1] != orders[2]


class Grouped(Task):
    """Takes two optimizer steps in each call of `training_step`, as training/grouped_steps.py does."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        counter = optimizer_step_counter(self.trainer)
        for _ in range(2):
            counter.increment_ready()
            optimizer.step()
            counter.increment_completed()


def test_steps_that_a_task_counts_itself_are_in_global_step_and_in_the_checkpoint(tmp_path: Path) -> None:
    recorder, path = Recorder(), tmp_path / "a.ckpt"
    made = trainer(tmp_path, recorder, max_epochs=1)
    made.fit(Grouped())
    assert recorder.steps == [2, 4, 6, 8, 10]
    made.save_checkpoint(path)
    assert torch.load(path, weights_only=True)["global_step"] == 10


def test_accumulating_is_known_in_a_validation_in_the_middle_of_a_step(tmp_path: Path) -> None:
    found: list[bool] = []

    class Look(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            found.append(internals.is_accumulating(trainer))

    made = trainer(tmp_path, Look(), max_epochs=1, accumulate_grad_batches=2, val_check_interval=1)
    made.fit(Task())
    assert found == [True, False, True, False, False]


def test_new_loaders_are_asked_for_once_that_is_switched_on(tmp_path: Path) -> None:
    asked: list[int] = []

    class Asked(Task):
        def train_dataloader(self) -> Any:
            asked.append(self.trainer.current_epoch)
            return self.batches

    class Switch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                internals.reload_loaders_each_epoch(trainer)

    trainer(tmp_path, Switch(), max_epochs=4).fit(Asked())
    assert asked == [0, 2, 3]


def test_loaders_that_are_replaced_at_the_start_are_iterated_over(tmp_path: Path) -> None:
    class Replace(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert [type(each) for each in internals.training_loaders(trainer)] == [Batches]
            internals.replace_training_loaders(trainer, [Batches(split(), 2)])
            internals.restart_training_iterator(trainer)

    recorder = Recorder()
    trainer(tmp_path, Replace(), recorder, max_epochs=1).fit(Task())
    assert [x for _, _, batch in recorder.batches for x in batch] == split().x.flatten().tolist()


@pytest.mark.parametrize("resumed", [False, True])
def test_a_resumed_run_replaces_the_checkpoints_that_it_saves_again(resumed: bool, tmp_path: Path) -> None:
    for _ in range(2):
        keep = ModelCheckpoint(tmp_path, "best", save_top_k=1, monitor="loss")
        if resumed:
            internals.overwrite_checkpoints([keep])
        trainer(tmp_path, keep, max_epochs=1, enable_checkpointing=True).fit(Task())
    assert (tmp_path / "best-v1.ckpt").exists() != resumed


class TwoRanks(SingleDeviceStrategy):
    """One process, which takes itself for one of two."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.world_size = 2


class Disable(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        internals.disable_sigterm_broadcast(trainer)


@pytest.fixture
def broadcasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sources of all broadcasts in a process group of this process alone."""
    found: list[int] = []

    def broadcast(tensor: Any, src: int, original: Any = torch.distributed.broadcast) -> None:
        found.append(src)
        original(tensor, src)

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    yield found
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("disabled", [False, True])
def test_ranks_broadcast_nothing_about_sigterm_before_a_batch(
    disabled: bool, broadcasts: list[int], tmp_path: Path
) -> None:
    callbacks = [Disable()] if disabled else []
    trainer(tmp_path, *callbacks, max_epochs=1, strategy=TwoRanks()).fit(Task())
    assert len(broadcasts) == (0 if disabled else BATCHES)


@pytest.mark.parametrize(("on_step", "name"), [(True, "loss"), (False, "loss"), (False, "other")])
def test_what_a_task_logs_in_its_training_steps_is_known_at_once(
    on_step: bool, name: str, tmp_path: Path
) -> None:
    found = []

    class Logs(Task):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = super().training_step(batch, index)
            self.log(name, 1.0, on_step=on_step, on_epoch=not on_step)
            return loss

    class Asks(Callback):
        def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
            found.append(internals.logged_in_training(trainer, "loss"))

    trainer(tmp_path, Asks(), max_epochs=1).fit(Logs())
    assert found == [name == "loss"] * BATCHES


class Exchanges(Task):
    def on_validation_epoch_start(self) -> None:
        """Where people put moving averages in place."""


def test_a_validation_with_other_weights_is_not_left_in_its_middle(tmp_path: Path) -> None:
    averaging, timer = EMAWeightAveraging(), Timer("00:01:00:00")  # Timer has a hook of the same name
    assert [
        may_exchange_weights(trainer(tmp_path, *callbacks), task)
        for callbacks, task in (([timer], Task()), ([averaging], Task()), ([], Exchanges()))
    ] == [False, True, True]
