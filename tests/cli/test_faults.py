"""What people get wrong on the command line, in configs and in trainer settings, and the line that they read.

Each case: what is given, the exit code, the setting or file that the answer names, the remedy that it says.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended

CASES = {
    "A01 typo in a key": (["trainer.max_epoch=3"], 2, "trainer.max_epoch:", "did you mean trainer.max_epochs?"),
    "A02 typo in an option": (["model=mpl"], 2, "model=mpl", "did you mean mlp?"),
    "A03 typo in a group": (["modle=cnn"], 2, "modle", "did you mean model?"),
    "A04 word for a number": (["trainer.max_epochs=ten"], 2, "trainer.max_epochs=ten", "needs a whole number"),
    "A06 negative learning rate": (["optimizer.lr=-1"], 2, "optimizer.lr=-1", "must be at least 0"),
    "A07 negative batch": (["data.batch_size=-4"], 2, "data.batch_size=-4", "needs a whole number >= 1"),
    "A08 empty batch": (["data.batch_size=0"], 2, "data.batch_size=0", "needs a whole number >= 1"),
    "A10 no value": (["model=own"], 2, "model.widths", "give it one: model.widths=..."),
    "A11 reference to nothing": (["optimizer.lr=${nope.key}"], 2, "optimizer.lr", "nope.key does not exist"),
    "A13 typo in a module": (["model._target_=regentee.models.cnn.CNN"], 2, "model._target_", "did you mean regente?"),
    "A13 typo in a class": (["model._target_=regente.models.cnn.CNM"], 2, "model._target_", "did you mean CNN?"),
    "A14 unknown argument": (["model.hiden=3"], 2, "model.hiden", "did you mean model.hidden?"),
    "A15 dashes": (["--optimizer.lr=0.1"], 2, "--optimizer.lr=0.1", "settings have no dashes: optimizer.lr=0.1"),
    "A15 dashes and a blank": (["--optimizer.lr", "0.1"], 2, "--optimizer.lr", "optimizer.lr=VALUE"),
    "A17 values without -m": (["optimizer.lr=0.1,0.2"], 2, "optimizer.lr=0.1,0.2", "add -m"),
    "A18 blanks": (["optimizer.lr", "=", "0.1"], 2, "optimizer.lr", "without blanks around the ="),
    "A18 blank before": (["optimizer.lr", "=0.1"], 2, "optimizer.lr", "without blanks around the ="),
    "A20 broken YAML": (["model=broken"], 2, "broken.yaml:3:", "blanks before this line"),
    "A22 tab": (["model=tab"], 2, "tab.yaml:3:", "YAML wants blanks"),
    "A23 no such folder": (["--config-dir", "/nope/conf"], 2, "/nope/conf", "name a folder that is there"),
    "A25 word for a rate": (["optimizer.lr=1e-3x"], 2, "optimizer.lr=1e-3x", "needs a number"),
    "A26 a function of the system": (["model._target_=os.system"], 2, "model._target_", "is not a component"),
    "C01 no GPU": (["trainer=gpu"], 3, "trainer.accelerator=gpu", "use trainer=cpu"),
    "C02 eight GPUs": (["trainer=gpu", "trainer.devices=8"], 3, "trainer.devices=8: 8 requested", "use trainer=cpu"),
    "C04 unknown precision": (["trainer.precision=fp17"], 2, "trainer.precision=fp17", "16-mixed"),
    "C07 negative epochs": (["trainer.max_epochs=-5"], 2, "trainer.max_epochs=-5", "at least 0, or -1"),
    "C10 accumulate nothing": (
        ["trainer.accumulate_grad_batches=0"], 2, "trainer.accumulate_grad_batches=0", "must be at least 1",
    ),
    "C11 share above one": (
        ["trainer.limit_train_batches=1.5"], 2, "trainer.limit_train_batches=1.5", "a share from 0.0 to 1.0",
    ),
    "C12 monitor of nothing": (["monitor.metric=val/los"], 2, "monitor.metric=val/los", "did you mean val/loss?"),
    "C12 callback of nothing": (
        ["callbacks.checkpoint.monitor=val/los"], 2, "callbacks.checkpoint.monitor=val/los", "did you mean val/loss?",
    ),
    "C14 negative devices": (["trainer.devices=-2"], 2, "trainer.devices=-2", "at least 1, -1 or auto"),
    "C14 word for devices": (["trainer.devices=two"], 2, "trainer.devices=two", "at least 1, -1 or auto"),
    "C04 half a floating point": (["trainer.precision=8"], 2, "trainer.precision=8", "bf16-mixed"),
    "C04 precision of a package": (
        ["trainer.precision=transformer-engine"], 3, "trainer.precision=transformer-engine", "use bf16",
    ),
    "C10 accumulate by words": (
        ["trainer.accumulate_grad_batches=two"], 2, "trainer.accumulate_grad_batches=two", "needs a whole number",
    ),
    "precision of products": (["trainer.matmul_precision=tf32"], 2, "trainer.matmul_precision=tf32", "highest, high, medium"),
    "no minutes": (["trainer.max_minutes=0"], 2, "trainer.max_minutes=0", "needs a number > 0"),
    "minutes in words": (["trainer.max_minutes=5min"], 2, "trainer.max_minutes=5min", "needs a number > 0"),
    "typo in a setting of ours": (["trainer.max_minute=5"], 2, "trainer.max_minute", "did you mean trainer.max_minutes?"),
    "a finder told yes": (["trainer.find_lr=maybe"], 2, "trainer.find_lr=maybe", "needs true or false"),
    "a finder on two devices": (
        ["trainer=cpu", "trainer.devices=2", "trainer.find_lr=true"], 2, "trainer.find_lr", "trainer.devices=1",
    ),
    "a finder of nothing": (["~optimizer.lr", "trainer.find_lr=true"], 2, "trainer.find_lr", "no setting here; add it"),
    "two limits of time": (
        ["trainer.max_minutes=5", "trainer.max_time=00:00:05:00"], 2, "trainer.max_time", "give one of them",
    ),
    "validation after no batch": (
        ["trainer.val_check_interval=0"], 2, "trainer.val_check_interval=0", "a number of batches from 1 on",
    ),
    "what Lightning refuses by itself": (["+trainer.barebones=true", "tracking=none"], 2, "trainer:", "barebones"),
    "negative clipping": (["trainer.gradient_clip_val=-1"], 2, "trainer.gradient_clip_val=-1", "must be at least 0"),
    "unknown clipping": (
        ["trainer.gradient_clip_algorithm=sum"], 2, "trainer.gradient_clip_algorithm=sum", "must be norm, value or null",
    ),
    "fewer than no sanity steps": (
        ["trainer.num_sanity_val_steps=-2"], 2, "trainer.num_sanity_val_steps=-2", "or -1",
    ),
    "a profile of nothing": (["trainer.profile_calls=-1"], 2, "trainer.profile_calls=-1", "needs a whole number >= 0"),
    "time without its unit": (["trainer.max_time=5s"], 2, "trainer.max_time=5s", "needs DD:HH:MM:SS"),
    "syntax error in the model": (["model._target_=torn.Own"], 2, "torn.py:1", "mend that line"),
    "option without its partner": (["--resolve"], 2, "--resolve", "go with --cfg job"),
    "C16 TPU": (["trainer.accelerator=tpu"], 3, "trainer.accelerator=tpu", "use trainer=auto"),
    "C18 word for a seed": (["seed=abc"], 2, "seed=abc", "needs a whole number"),
    "C20 no units": (["model.hidden=0"], 2, "model.hidden=0", "needs a whole number >= 1"),
    "no such experiment": (["digit_cnn"], 2, "digit_cnn", "did you mean digits_cnn?"),
    "no value for a required argument": (["~model.hidden"], 2, "model.hidden", "give it: model.hidden=..."),
    "classes of other data": (["model.num_classes=3"], 2, "model.num_classes=3", "${data.num_classes}"),
    "an argument that is Regente's": (["trainer.logger=false"], 2, "trainer.logger", "leave it out"),
    "a model for data": (["data._target_=torch.nn.Linear"], 2, "data._target_", "is not a LightningDataModule"),
    "typo in a callback": (["callbacks.chekpoint.monitor=val/loss"], 2, "callbacks.chekpoint", "mend the name"),
    "a group told to be a number": (["model=nan"], 2, "model=nan", "takes the name of an option"),
    "a setting without a value": (["trainer.max_epochs"], 2, "trainer.max_epochs", "give it one: trainer.max_epochs=..."),
    "two experiments": (["digits_cnn", "mnist_cnn"], 2, "mnist_cnn", "one at a time"),
    "a job directory that is not there": (["runs/nope"], 2, "runs/nope", "a folder with job.json"),
    "a group told to be null": (["scheduler=null"], 2, "scheduler=null", "there is: cosine, none"),
    "unknown accelerator": (["trainer.accelerator=gpuu"], 2, "trainer.accelerator=gpuu", "auto, cpu, gpu, mps"),
    "words for a model of images": (["data=text", "model=mlp"], 2, "regente.models.mlp.MLP", "use model=lstm"),
    "images for a model of words": (["model=lstm"], 2, "model.vocab_size", "data.vocab_size does not exist"),
    "tied weights, two widths": (["text_lstm", "model.tie_weights=true", "model.hidden=64"], 2, "model.tie_weights", "one width"),
    "a text that is not there": (["text_lstm", "data.path=/nope"], 4, "data.path=/nope", "leave data.path out"),
    "a variable that is not set": (["folder_cnn", "data.root=${oc.env:NOWHERE}"], 2, "data.root", "export NOWHERE=..."),
    "no value behind ++": (["++optimizer.lr"], 2, "optimizer.lr", "write key=value"),
    "a bracket left open behind ++": (["++optimizer.lr=[1"], 2, "optimizer.lr=[1", "quote it"),
    "a part that an experiment makes null": (["nothing"], 2, "trainer: is null", "there is: auto"),
    "a run to resume": (["mnist_cnn", "resume=latest"], 2, "resume=latest", "to resume a run: regente resume latest"),
}  # fmt: skip


@pytest.fixture
def own_config(project: Path) -> Path:
    (project / "conf/model").mkdir(parents=True)
    (project / "conf/model/own.yaml").write_text(
        "_target_: regente.models.mlp.MLP\ninput_shape: [1, 28, 28]\nnum_classes: 10\nwidths: ???\n"
    )
    (project / "conf/model/broken.yaml").write_text("_target_: x\nlr: 1\n   wide: 2\n")
    (project / "experiments").mkdir()
    (project / "experiments/nothing.yaml").write_text("defaults: [/train, _self_]\ntrainer: null\n")
    (project / "torn.py").write_text("def (:\n")
    (project / "conf/model/tab.yaml").write_text("_target_: x\nwide:\n\tlr: 1\n")
    return project


@pytest.mark.usefixtures("own_config")
@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_noticed_briefly_by_name_and_with_its_remedy(
    case: str, regente: Callable[..., Ended]
) -> None:
    words, code, name, remedy = CASES[case]
    ended = regente("train", *words)
    assert ended.code == code, ended.err
    assert len(ended.lines) <= 8
    assert "Traceback" not in ended.err
    assert name in ended.err
    assert remedy in ended.err


def test_all_problems_come_in_one_message(regente: Callable[..., Ended]) -> None:
    ended = regente(
        "check", "model=mpl", "trainer.max_epoch=3", "optimizer.lr=-1", "sead=3", "data.batch_size=0"
    )
    assert ended.code == 2
    for name in ("model=mpl",):
        assert name in ended.err
    ended = regente("check", "trainer.max_epoch=3", "optimizer.lr=-1", "sead=3", "data.batch_size=0")
    for name in ("trainer.max_epoch", "optimizer.lr=-1", "sead", "data.batch_size=0"):
        assert name in ended.err
    assert len(ended.lines) == 4


def test_nothing_is_left_behind_by_a_request_that_is_refused(
    regente: Callable[..., Ended], project: Path
) -> None:
    regente("train", "trainer.max_epoch=3")
    assert {path.name for path in project.iterdir()} <= {"out", "err", "cache"}


@pytest.mark.parametrize("devices", ["-1", "auto"])
def test_all_devices_of_a_cpu_are_one(devices: str, regente: Callable[..., Ended]) -> None:
    words = ["digits_mlp", "trainer=debug", f"trainer.devices={devices}", "tracking=none"]
    ended = regente("train", *words)
    assert ended.code == 0, ended.err


def test_one_device_with_ddp_trains_and_says_that_it_gains_nothing(regente: Callable[..., Ended]) -> None:
    ended = regente("train", "digits_mlp", "trainer=debug", "trainer.strategy=ddp", "tracking=none")
    assert ended.code == 0, ended.err
    assert "strategy=ddp with one device only adds work" in ended.out
