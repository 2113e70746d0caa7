"""Features in place of images: the same training, less work."""

import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.models.features import feature_file
from regente.models.features.augmented_views import AugmentedViews
from regente.models.features.cached_features import BACKBONE_BATCH_SIZE, Bank
from regente.models.transfer import Transfer
from tests.conftest import Ended
from tests.training.test_fit import jobs

pytestmark = pytest.mark.slow  # not in `make quick`

Run = Callable[..., Ended]
SMALL = ["model=transfer", "model.backbone=squeezenet1_1", "model.weights=null"]
FAST = ["train", *SMALL, "tracking=none", "trainer=cpu", "trainer.max_epochs=2"]
KEPT = "regente/features"


def bank(*words: str) -> Bank:
    config = resolve(compose("digits_cnn", [*SMALL, "trainer=cpu", *words]).node)
    model, data = (instantiate(config[part], _convert_="all") for part in ("model", "data"))
    assert isinstance(model, Transfer)
    assert model.feature_bank is not None
    model.backbone_batch_size = BACKBONE_BATCH_SIZE["cpu"]
    data.setup("fit")
    return Bank(model, model.feature_bank, data, config, torch.device("cpu"))


def made(project: Path) -> list[Path]:
    return [path for path in sorted((project / "cache" / KEPT).glob("*")) if path.is_dir()]


CASES = {
    "with dropout": ["model.dropout=0.3", "model.hidden=[32]"],
    "half precision": ["trainer.precision=bf16-mixed", "model.dropout=0.3"],
    "a schedule, batches that do not come out even": ["scheduler=onecycle", "data.batch_size=50"],
}


@pytest.mark.parametrize("case", CASES)
def test_the_head_learns_the_same_to_the_bit_with_and_without_stored_features(
    case: str, regente: Run, project: Path
) -> None:
    outs = []
    for words in ([], [], ["model.feature_bank=null"]):
        ended = regente(*FAST, *CASES[case], *words)
        assert ended.code == 0, ended.err
        outs.append(ended.out)
    assert "features of squeezenet1_1 for 1,797 samples computed in" in outs[0]
    assert "features of squeezenet1_1 for 1,797 samples from" in outs[1]
    assert "features" not in outs[2]
    assert len(made(project)) == 1
    found = sorted(jobs(project), key=lambda job: job.stat().st_ctime)
    results = [json.loads((job / "result.json").read_text())["metrics"] for job in found]
    assert results[0] == results[1]
    # a sum of losses is rounded otherwise where validation comes in the same batches, so not even that may differ
    assert results[0] == results[2]
    states = [torch.load(job / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for job in found]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])
        assert torch.equal(value, states[2][key])


def test_what_the_features_depend_on_makes_another_bank(project: Path) -> None:
    changes = ["seed=1", "model.backbone=resnet18", "model.feature_bank.precision=bf16", "data.split_seed=1"]
    changes += ["data.mean=[0.5]", "trainer.precision=bf16-mixed"]
    folders = {bank().folder, *(bank(change).folder for change in changes)}
    assert len(folders) == 1 + len(changes)
    same = ["model.hidden=[8]", "optimizer.lr=1", "data.batch_size=7", "model.dropout=0.5"]
    assert {bank(word).folder for word in same} == {bank().folder}


def test_bf16_takes_half_the_room_and_is_close(project: Path) -> None:
    features = []
    for words in ([], ["model.feature_bank.precision=bf16"]):
        each = bank(*words)
        each.compute()
        features.append(each.open()["val"].tensors[0])
    exact, half = features
    assert (exact.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert half.nbytes == exact.nbytes / 2
    assert (half.float() - exact).norm() < 0.02 * exact.norm()


def compute(folder: str, commit: float) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    feature_file.COMMIT_SECONDS = commit
    print(bank().compute())  # noqa: T201


def test_a_kill_loses_no_feature_and_leaves_none_wrong(warm: ForkServerContext, project: Path) -> None:
    expected = bank()
    expected.compute()
    other = project / "other"
    draft = other / KEPT / f"{expected.folder.name}.part"
    for least in (64, 640):  # rows that are there when it is killed
        process = warm.Process(target=compute, args=(str(other), 0.0))
        process.start()
        while rows(draft) < least:
            assert process.is_alive()
            time.sleep(0.01)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (other / KEPT / expected.folder.name).exists()
    left = rows(draft)
    process = warm.Process(target=compute, args=(str(other), 0.0))
    process.start()
    process.join(100)
    assert process.exitcode == 0
    assert left >= 640
    assert not draft.exists()
    for name in ("train", "val", "test"):
        whole = (expected.folder / f"{name}.npy").read_bytes()
        assert (other / KEPT / expected.folder.name / f"{name}.npy").read_bytes() == whole


def rows(draft: Path, splits: str = "train") -> int:
    try:
        return sum(int(file.read_text()) for file in draft.glob(f"{splits}.rows"))
    except (OSError, ValueError):
        return 0


@pytest.mark.parametrize("last", [20, 44])  # in the training samples, and behind them
def test_rows_that_are_there_are_not_computed_again(
    last: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bank()
    seen: list[int] = []
    through = Transfer.features

    def stop(model: Transfer, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        if len(seen) == last:
            raise KeyboardInterrupt
        return through(model, x)

    monkeypatch.setattr(feature_file, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(Transfer, "features", stop)
    with pytest.raises(KeyboardInterrupt):
        first.compute()
    draft = first.folder.with_name(f"{first.folder.name}.part")
    there = rows(draft, "*")
    assert there >= 32
    assert (rows(draft) == 1257) == (last > 40)
    seen[:] = [0] * (last + 1)
    bank().compute()
    assert sum(seen) == 1797 - there


def test_two_processes_that_need_the_same_features_compute_them_once(
    warm: ForkServerContext, project: Path
) -> None:
    processes = [
        warm.Process(target=compute_and_report, args=(str(project / "cache"), str(project / str(n))))
        for n in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    said = sorted((project / str(n)).read_text() for n in (0, 1))
    assert sum("computed in" in text for text in said) == 1


def compute_and_report(folder: str, file: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    Path(file).write_text(bank().compute())


def test_with_augmentation_nothing_is_kept_unless_views_are_and_that_is_said(
    regente: Run, project: Path
) -> None:
    ended = regente(
        *FAST, "augment=flip_crop", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"
    )
    assert ended.code == 0, ended.err
    assert "features are computed anew in each epoch: augmentation changes the images" in ended.out
    assert not made(project)
    ended = regente(*FAST, "augment=flip_crop", "model.feature_bank.views=2")
    assert ended.code == 0, ended.err
    (folder,) = made(project)
    assert json.loads((folder / "train.rows").read_text()) == 2 * 1257
    assert json.loads((folder / "val.rows").read_text()) == 270


def test_each_epoch_takes_the_next_view(project: Path) -> None:
    each = bank("augment=flip_crop", "model.feature_bank.views=2")
    each.compute()
    served: dict[str, Any] = each.open()
    assert isinstance(served["train"], AugmentedViews)
    each.data.use_features(served)
    batches, found = each.data.train_dataloader(), []
    for epoch in range(3):
        batches.set_epoch(epoch)
        order, (x, y) = batches.order(), next(iter(batches))
        index = order[: len(x)]
        assert torch.equal(y, each.data.splits["train"].y[index])
        found.append(served["train"].x[epoch % 2].index_select(0, index))
        assert torch.equal(x, found[-1])
    views = served["train"].x
    assert not torch.equal(views[0], views[1])
    plain = bank()
    plain.compute()
    assert not torch.equal(views[0], plain.open()["train"].tensors[0])


def test_a_run_that_sees_few_samples_keeps_no_features(regente: Run, project: Path) -> None:
    ended = regente(*FAST, "trainer.limit_train_batches=2")
    assert ended.code == 0, ended.err
    assert "not stored: trainer.limit_train_batches=2" in ended.out
    assert not made(project)


def test_a_damaged_bank_is_named(project: Path) -> None:
    each = bank()
    each.compute()
    file = each.folder / "val.npy"
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[-1] ^= 1
    for damaged in (content[:500], flipped):
        file.write_bytes(damaged)
        with pytest.raises(Exception, match=rf"val.npy: damaged.*regente cache clear {each.folder.name}"):
            each.open()


OWN = """
import torch
from pytorch_lightning import Callback
class Keep(Callback):
    def on_train_start(self, trainer, module):
        self.before = {key: value.clone() for key, value in module.model.backbone.state_dict().items()}
    def on_train_end(self, trainer, module):
        after = module.model.backbone.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in self.before.items())
        assert all(p.grad is None for p in module.model.backbone.parameters())
        assert sum(len(group["params"]) for group in trainer.optimizers[0].param_groups) == 2
        open(f"same-{trainer.global_rank}", "w").close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_frozen_means_frozen_in_a_real_run_of_half_precision(ranks: int, regente: Run, project: Path) -> None:
    (project / "own.py").write_text(OWN)
    ended = regente(
        *[
            "train",
            "model=transfer",
            "model.backbone=mobilenet_v3_small",
            "model.weights=null",
            "tracking=none",
        ],
        *["trainer=cpu", "trainer.precision=bf16-mixed", f"trainer.devices={ranks}", "trainer.max_epochs=1"],
        *["trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"],
        *["model.feature_bank=null", "+callbacks.keep._target_=own.Keep"],
    )
    assert ended.code == 0, ended.err
    assert all((project / f"same-{rank}").exists() for rank in range(ranks))
