"""A user's own parts: the tests copy this file into a project, and it imports nothing of Regente but its public names."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

import regente


def samples(number: int, seed: int = 0):
    x = torch.randn(number, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(1) > 0).long()


# data


class Tuples(pl.LightningDataModule):
    """Batches (x, y)."""

    def __init__(self, batch_size: int = 16, workers: int = 0):
        super().__init__()
        self.batch_size, self.workers = batch_size, workers

    def dataset(self, number: int, seed: int) -> Dataset:
        return TensorDataset(*samples(number, seed))

    def loader(self, number: int, seed: int, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            self.dataset(number, seed), self.batch_size, shuffle=shuffle, num_workers=self.workers
        )

    def train_dataloader(self):
        return self.loader(160, 1, True)

    def val_dataloader(self):
        return self.loader(77, 2)

    def test_dataloader(self):
        return self.loader(77, 3)

    def predict_dataloader(self):
        return self.loader(77, 4)


class Mapped(Dataset):
    def __init__(self, x, y):
        self.x, self.y, self.change = x, y, lambda x: x * 1.0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.change(self.x[i]), self.y[i]


class Lambdas(Tuples):
    """A data set that cannot be pickled, with workers."""

    def __init__(self):
        super().__init__(workers=2)

    def dataset(self, number, seed):
        return Mapped(*samples(number, seed))


class Dicts(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"image": {"x": self.x[i]}, "label": self.y[i], "name": f"sample {i}"}


class Nested(Tuples):
    """Nested dicts with texts."""

    def dataset(self, number, seed):
        return Dicts(*samples(number, seed))


class Three(Tuples):
    """Three tensors: samples, labels, weights."""

    def dataset(self, number, seed):
        x, y = samples(number, seed)
        return TensorDataset(x, y, torch.rand(len(x), generator=torch.Generator().manual_seed(seed)))


class Stream(IterableDataset):
    def __init__(self, number, seed):
        self.number, self.seed = number, seed

    def __iter__(self):
        yield from zip(*samples(self.number, self.seed), strict=True)


class Streams(Tuples):
    """A stream without a length."""

    def loader(self, number, seed, shuffle=False):
        return DataLoader(Stream(number, seed), self.batch_size)


class TwoValidations(Tuples):
    """Two validation loaders."""

    def val_dataloader(self):
        return [self.loader(77, 2), self.loader(33, 5)]


class NoTest(pl.LightningDataModule):
    """Training samples only."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(*samples(160, 1)), 16, shuffle=True)


class Own(regente.InMemory):
    """A data module on Regente's base class."""

    def read(self):
        return {
            split: samples(number, seed)
            for split, number, seed in (("train", 160, 1), ("val", 77, 2), ("test", 77, 3))
        }


class Random(Dataset):
    """A data set as a part of `LightningDataModule.from_datasets`."""

    def __init__(self, number: int, seed: int = 0):
        self.x, self.y = samples(number, seed)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


# models and tasks


class Net(nn.Module):
    def __init__(self, width: int = 16, num_classes: int = 2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(width, num_classes),
        )

    def forward(self, x):
        return self.layers(x)


class Lit(pl.LightningModule):
    """Automatic optimization of a network of its own."""

    def __init__(self, lr: float = 0.01, width: int = 16):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width)

    def forward(self, x):
        return self.net(x)

    def inputs(self, batch):
        return batch[0], batch[1]

    def loss(self, batch):
        x, y = self.inputs(batch)
        return nn.functional.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return self(self.inputs(batch)[0]).argmax(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class LitDict(Lit):
    """Reads nested dicts."""

    def inputs(self, batch):
        return batch["image"]["x"], batch["label"]


class Weighted(Lit):
    def loss(self, batch):
        x, y, weight = batch
        return (nn.functional.cross_entropy(self(x), y, reduction="none") * weight).mean()


class Several(Lit):
    """Several validation loaders."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch))


class Metrics(Lit):
    """torchmetrics, logged over the epoch of the training too, and a plateau schedule on one of them."""

    def __init__(self, lr: float = 0.01, width: int = 16):
        super().__init__(lr, width)
        found = MetricCollection({"acc": MulticlassAccuracy(2), "f1": MulticlassF1Score(2)})
        self.train_metrics, self.val_metrics = found.clone("train/"), found.clone("val/")
        self.mean = MeanMetric()

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.train_metrics(self(self.inputs(batch)[0]), self.inputs(batch)[1])
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True)
        self.mean(loss)
        self.log("train/mean", self.mean, on_step=False, on_epoch=True)
        return {"loss": loss, "seen": len(batch[0])}

    def validation_step(self, batch, batch_idx):
        self.val_metrics(self(batch[0]), batch[1])
        self.log_dict(self.val_metrics)
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, factor=0.5, threshold=1.0
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "train/mean"}}


class PerStep(Lit):
    """A schedule that is stepped with each batch."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.lr, total_steps=self.trainer.estimated_stepping_batches
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Gan(pl.LightningModule):
    """Manual optimization with two optimizers, no validation and no test."""

    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator, self.critic = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, z):
        return self.generator(z)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        made = self(torch.randn(len(batch[0]), 4, device=self.device))
        loss = -self.critic(made).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        second.zero_grad()
        other = self.critic(made.detach()).mean() - self.critic(batch[0]).mean()
        self.manual_backward(other)
        second.step()
        self.log_dict({"g_loss": loss, "d_loss": other}, on_epoch=True)

    def configure_optimizers(self):
        return [
            torch.optim.SGD(net.parameters(), lr=self.hparams.lr) for net in (self.generator, self.critic)
        ]


class Outputs(Lit):
    """Steps that return what they computed; some training steps are skipped."""

    def training_step(self, batch, batch_idx):
        return None if batch_idx == 2 else {"loss": self.loss(batch), "losses": [1, 2]}

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))
        return {"preds": self(batch[0]).argmax(1), "targets": batch[1]}


class Objects(Lit):
    """A network and factories as arguments, which its hyperparameters hold."""

    def __init__(self, net: nn.Module, optimizer, scheduler=None):
        super(Lit, self).__init__()
        self.save_hyperparameters(logger=False)
        self.net = net

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": self.hparams.scheduler(optimizer=optimizer)}


class Given(pl.LightningModule):
    """Takes the model and the factories of the groups."""

    def __init__(self, model: nn.Module, optimizer, scheduler, monitor: str):
        super().__init__()
        self.model, self.make, self.make_schedule, self.monitor = model, optimizer, scheduler, monitor

    def forward(self, x):
        return self.model(x)

    training_step = Lit.training_step
    validation_step = Lit.validation_step
    test_step = Lit.test_step
    predict_step = Lit.predict_step
    loss = Lit.loss
    inputs = Lit.inputs

    def configure_optimizers(self):
        return self.make(self.parameters())


class Groups(Lit):
    """Parameter groups of its own: no weight decay on biases."""

    def configure_optimizers(self):
        sort = lambda bias: [p for name, p in self.named_parameters() if name.endswith("bias") is bias]  # noqa: E731
        groups = [{"params": sort(False), "weight_decay": 0.1}, {"params": sort(True), "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.hparams.lr)


class Logs(Lit):
    """Uses its logger as people do."""

    def on_train_epoch_end(self):
        self.logger.log_metrics({"own": float(self.current_epoch)}, step=self.global_step)
        self.logger.log_hyperparams({"answer": 42})
        self.logger.experiment.add_scalar("scalar", 1.0, self.global_step)


class Supervised(regente.Supervised):
    """A task on Regente's base class, with a metric of its own."""

    means = ("loss", "certainty")

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def count(self, batch):
        x, y = batch
        logits = self.model(x)
        loss = nn.functional.cross_entropy(logits, y, reduction="none")
        certainty, prediction = logits.softmax(1).max(1)
        self.totals += torch.stack([loss.sum(), certainty.sum(), loss.new_tensor(len(loss))])
        return {"label": y, "prediction": prediction, "loss": loss}


# callbacks, optimizers


class Count(Callback):
    """Has a state, and logs a metric."""

    def __init__(self, every: int = 1):
        self.every, self.seen = every, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen += self.every
        module.log("seen", float(self.seen))

    def on_validation_epoch_end(self, trainer, module):
        module.log("val/seen", float(self.seen))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 1e-3, beta: float = 0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.lerp_(p.grad, 1 - group["beta"])
                    p.sub_(mean.sign(), alpha=group["lr"])
        return loss
