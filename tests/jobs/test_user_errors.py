"""An error in the user's code, or in what a library makes of it, is one line that says where; never a fault of Regente."""

import importlib
import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from regente.config.compose import compose, recompose
from regente.errors import ConfigError
from regente.jobs import exit_status
from regente.jobs.exit_status import ExitStatus, exit_status_of, memory_limit
from regente.jobs.hardware import fit_trainer
from regente.training.assemble import make
from regente.training.ranks.strategies import strategy
from tests.conftest import Ended

Run = Callable[..., Ended]
OWN = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

class Rows(Dataset):
    def __init__(self, kind=""):
        self.kind = kind
    def __len__(self):
        return 16
    def __getitem__(self, i):
        if self.kind == "row":
            raise KeyError("row is bad")
        x, y = torch.ones(4), torch.tensor(i % 2)
        return {"x": x, "y": y} if self.kind == "dict" else (x, y)

class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(4), torch.tensor(0))])

class Data(LightningDataModule):
    def __init__(self, kind: str = "", num_classes: int = 2, input_shape: list[int] = [4]):
        super().__init__()
        self.kind = kind
    def train_dataloader(self):
        if self.kind == "stream":
            return DataLoader(Stream(), 8)
        return DataLoader(Rows(self.kind), 8, num_workers=1 if self.kind == "row" else 0)
    def val_dataloader(self):
        return [DataLoader(Rows(), 8)] * 2 if self.kind == "two" else DataLoader(Rows(self.kind.replace("row", "")), 8)

class Task(LightningModule):
    def __init__(self, kind: str = ""):
        super().__init__()
        self.layer, self.kind = nn.Linear(4, 2), kind
        if kind == "manual":
            self.automatic_optimization = False
    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        if self.kind == "raises":
            raise ValueError("two\\nlines")
        if self.kind == "asserts":
            assert len(batch) == 3
        if self.kind == "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes.")
        results = {"dict": {"losses": loss}, "vector": loss.repeat(2), "fixed": loss.detach(), "text": "abc"}
        return results.get(self.kind, loss)
    def validation_step(self, batch, batch_idx):
        pass
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return {"optim": optimizer} if self.kind == "optim" else optimizer
"""


@pytest.fixture
def own(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (project / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(project))
    return importlib.import_module("own")


def ending(own: Any, task: str = "", data: str = "", **settings: Any) -> ExitStatus:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        Trainer(**quiet, **settings).fit(own.Task(task), datamodule=own.Data(data))
    return below_the_test(caught.value)


def below_the_test(error: BaseException) -> ExitStatus:
    """As in a run, whose traceback begins in Regente."""
    trace = error.__traceback__
    assert trace is not None
    return exit_status_of(error.with_traceback(trace.tb_next), own={"task": "own.Task", "data": "own.Data"})


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(OWN.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("kinds", "place", "text"),
    [
        (("raises", ""), 'ValueError("two', "ValueError: two lines"),
        (("asserts", ""), "assert len", "AssertionError: assert len(batch) == 3"),
        (("", "row"), "row is bad", "KeyError: 'row is bad' (in a worker of the DataLoader)"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_it_names_the_line_of_the_users_code(
    kinds: tuple[str, str], place: str, text: str, own: Any, project: Path
) -> None:
    ended = ending(own, *kinds)
    assert (ended.exit_code, ended.message) == (1, f"{project}/own.py:{line_of(place)}: {text}")


@pytest.mark.parametrize(
    ("kinds", "settings", "code", "text"),
    [
        (("dict", ""), {}, 2, "when `training_step` returns a dict, the 'loss' key needs to be present"),
        (("text", ""), {}, 2, "`training_step` must return a Tensor, a dict, or None"),
        (("vector", ""), {}, 1, "grad can be implicitly created only for scalar outputs"),
        (("fixed", ""), {}, 1, "element 0 of tensors does not require grad"),
        (("optim", ""), {}, 1, "KeyError: 'optimizer' (at optimizer.py:"),
        (("", "two"), {}, 1, "You provided multiple `val_dataloader`"),
        (("manual", ""), {"accumulate_grad_batches": 2}, 2, "gradient accumulation is not supported"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_library_says_of_a_part_names_the_own_parts(
    kinds: tuple[str, str], settings: dict[str, Any], code: int, text: str, own: Any
) -> None:
    ended = ending(own, *kinds, **settings)
    assert ended.exit_code == code
    assert len(ended.message.splitlines()) == 1
    assert text in ended.message
    assert (
        f"own parts: task own.py:{line_of('class Task')}, data own.py:{line_of('class Data')})"
        in ended.message
    )


@pytest.mark.filterwarnings("ignore")
def test_memory_that_runs_out_on_a_cpu_names_what_to_lower(own: Any) -> None:
    ended = ending(own, "memory")
    assert ended.exit_code == 3
    assert ended.message.startswith("out of memory (4000 bytes more were needed); lower data.batch_size")


def test_a_limit_of_memory_is_named_with_the_command_that_raises_it() -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (10**12, limits[1]))
    try:
        ended, other = (
            exit_status_of(ImportError(f"a.so: failed to map segment from shared object{why}"))
            for why in ("", ": Operation not permitted")
        )
        assert memory_limit(10**11) == "" != memory_limit(10**13)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert (ended.exit_code, other.exit_code) == (3, 1)
    assert ended.message == "out of memory: ulimit -v allows 1000.0 GB; raise it: ulimit -v unlimited"


def test_an_error_in_regente_itself_stays_a_fault() -> None:
    with pytest.raises(AttributeError) as caught:
        fit_trainer(None)  # type: ignore[arg-type]
    assert "fault of Regente" in below_the_test(caught.value).message


@pytest.mark.filterwarnings("ignore")
def test_a_parameter_without_gradient_on_several_ranks_names_the_strategy(project: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{project}/ranks", rank=0, world_size=1)
    try:
        layers = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])
        layers.forward = lambda x: layers[0](x)  # type: ignore[method-assign]
        model = torch.nn.parallel.DistributedDataParallel(layers)
        model(torch.ones(1, 1)).sum().backward()
        with pytest.raises(RuntimeError) as caught:
            model(torch.ones(1, 1))
    finally:
        torch.distributed.destroy_process_group()
    ended = exit_status_of(caught.value)
    assert ended.exit_code == 2
    assert ended.message.startswith("trainer.strategy: ")
    assert ended.message.endswith("use trainer.strategy=ddp_find_unused_parameters_true")


def test_a_module_that_cannot_be_imported_is_named_with_its_line(own: Any, project: Path) -> None:
    (project / "broken.py").write_text("from torch import nn\nx = undefined\n")
    with pytest.raises(NameError) as caught:
        make("model", {"_target_": "broken.Net"})
    assert exit_status_of(caught.value).message.startswith(
        f"{project}/broken.py:2: NameError: name 'undefined'"
    )


def test_devices_and_strategies_are_taken_or_named(project: Path) -> None:
    trainer = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}
    for devices in ([0], "0,", "auto", -1):
        assert fit_trainer({**trainer, "devices": devices})[0]["devices"] == 1
    with pytest.raises(ConfigError, match="strategy=ddpp: no such strategy; did you mean ddp"):
        strategy({"strategy": "ddpp"})


@pytest.mark.parametrize("line", ["scheduler: cosine", "tracking: none", "model: mlp"])
def test_an_option_in_the_place_of_a_part_is_named(line: str, project: Path) -> None:
    (project / "experiments").mkdir()
    (project / "experiments/mine.yaml").write_text(f"# A test's\ndefaults: [/train, _self_]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        compose("mine", [])
    group, _, name = line.partition(": ")
    (text,) = str(caught.value).splitlines()
    assert text.startswith(f"{group}: is the text '{name}'")
    assert text.endswith(f"- override /{group}: {name}")


def test_a_setting_of_a_resumed_run_that_cannot_be_read_is_named() -> None:
    frozen = compose("digits_mlp", []).yaml()
    for word in ("optimizer.lr=[1", "KEY=[1", "optimizer.lr={a", "seed"):
        with pytest.raises(ConfigError) as caught:
            recompose(frozen, [word], "digits_mlp")
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value).startswith(f"{word}: ")


CASES = {
    "dict": ("data: gives mappings with x, y; this task takes pairs (x, y) of tensors", []),
    "two": ("data: gives several loaders for a split, and Classifier takes one", []),
    "stream": ("scheduler: OneCycleLR needs the number of steps", ["scheduler=onecycle"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_built_in_task_says_what_it_takes(kind: str, regente: Run, own: Any, project: Path) -> None:
    (project / "conf/data").mkdir(parents=True)
    (project / "conf/data/own.yaml").write_text(
        f"_target_: own.Data\nkind: {kind}\nnum_classes: 2\ninput_shape: [4]\n"
    )
    text, words = CASES[kind]
    ended = regente("train", "digits_mlp", "data=own", "tracking=none", *words)
    assert ended.code == 2, ended.err
    assert len(ended.lines) == 1
    assert ended.err.startswith(text)


def test_an_error_of_a_model_that_was_loaded_is_not_regentes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of an installed package, as `regente predict` uses it."""
    monkeypatch.setattr(exit_status, "loaded_parts", {"task": "fractions.Fraction"})
    with pytest.raises(TypeError) as caught:
        Fraction("1", "x")  # type: ignore[arg-type]
    assert caught.tb.tb_next is not None  # as from a command, without a frame of the user's
    found = exit_status.exit_status_of(caught.value.with_traceback(caught.tb.tb_next))
    assert "fault of Regente" not in found.message
    assert "own parts: task" in found.message


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 with torch 2.15
def test_more_batches_between_validations_than_an_epoch_has_are_one_line(tmp_path: Path) -> None:
    from pytorch_lightning import Trainer
    from pytorch_lightning.demos.boring_classes import BoringModel

    off: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, val_check_interval=1000, **off
    )
    with pytest.raises(ValueError, match="val_check_interval") as caught:
        trainer.fit(BoringModel())
    status = exit_status_of(caught.value)
    assert status.exit_code == 2
    assert status.message.startswith(
        "trainer.val_check_interval: 1000 batches, but an epoch has 64; give fewer, or"
    )
