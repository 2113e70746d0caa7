"""Kinds of own parts (rows) through the commands (columns): each cell works, is equal to the bit, or is one line.

`make matrix` runs all of it and prints the table; `make test` leaves it out, since it takes a quarter of an hour.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import Ended
from tests.training.checkpoints.test_resume import assert_same
from tests.training.test_fit import jobs, until

Run = Callable[..., Ended]
Start = Callable[..., ForkServerProcess]
COLUMNS = ("train", "resume", "sweep", "evaluate", "predict", "export", "rerun", "ranks")
TABLE = Path(os.environ.get("REGENTE_MATRIX", "build/matrix")).resolve()
DATA, TASK = {"data": {"_target_": "parts.Tuples"}}, {"task": {"_target_": "parts.Lit"}}
LIT = {**DATA, **TASK, "monitor": {"metric": "val_loss", "mode": "min"}}
NET = {"_target_": "parts.Net", "width": 16}
GIVEN = {"model": NET, "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}}
SMALL = {"_target_": "pytorch_lightning.LightningDataModule.from_datasets", "batch_size": 16}


def of(name: str) -> dict[str, str]:
    return {"_target_": f"parts.{name}"}


KINDS: dict[str, dict] = {
    "a LightningModule as it is": LIT,
    "a network and factories as arguments": {
        **LIT,
        "task": {
            **of("Objects"), "net": NET,
            "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01},
            "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 1},
        },
    },
    "takes model, optimizer, scheduler, monitor": {**LIT, **GIVEN, "task": of("Given")},
    "manual optimization, two optimizers": {**LIT, "task": of("Gan"), "monitor": {"metric": "g_loss", "mode": "min"}},
    "torchmetrics and a plateau on one": {**LIT, "task": of("Metrics"), "monitor": {"metric": "val/acc", "mode": "max"}},
    "a schedule for each step": {**LIT, "task": of("PerStep")},
    "steps that return dicts or None": {**LIT, "task": of("Outputs")},
    "parameter groups": {**LIT, "task": of("Groups")},
    "uses its logger": {**LIT, "task": of("Logs")},
    "a subclass of regente.Supervised": {
        **LIT, **GIVEN, "task": of("Supervised"), "monitor": {"metric": "val/certainty", "mode": "max"},
    },
    "an own model in a built-in task": {**DATA, **GIVEN, "data": of("Tuples")},
    "an own optimizer": {**DATA, "model": NET, "optimizer": {**of("Lion"), "_partial_": True, "lr": 0.001}},
    "nested dicts with texts": {**LIT, "data": of("Nested"), "task": of("LitDict")},
    "batches of three tensors": {**LIT, "data": of("Three"), "task": of("Weighted")},
    "an unpicklable data set, workers": {**LIT, "data": of("Lambdas")},
    "a stream": {**LIT, "data": of("Streams")},
    "two validation loaders": {
        **LIT, "data": of("TwoValidations"), "task": of("Several"),
        "monitor": {"metric": "val_loss/dataloader_idx_0", "mode": "min"},
    },
    "no validation and no test": {**LIT, "data": of("NoTest"), "monitor": {"metric": "train_loss", "mode": "min"}},
    "a pair of data sets": {
        **LIT,
        "data": {**SMALL, "train_dataset": {**of("Random"), "number": 160}, "val_dataset": {**of("Random"), "number": 77}},
    },
    "a subclass of regente.InMemory": {**LIT, "data": {**of("Own"), "batch_size": 16}},
    "a callback with a state that logs": {
        **LIT, "callbacks": {"count": of("Count")}, "monitor": {"metric": "val/seen", "mode": "max"},
    },
    "EMA weights": {
        **LIT,
        "callbacks": {"ema": {"_target_": "pytorch_lightning.callbacks.EMAWeightAveraging", "decay": 0.9}},
    },
    "an own trainer file": {
        **LIT, "trainer": {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0, "val_check_interval": 0.5},
    },
    "lightning for pytorch_lightning": LIT,
}  # fmt: skip
ONE_LINE: dict[str, set[str]] = {  # the columns in which a kind is answered in one line
    "manual optimization, two optimizers": {"evaluate", "predict", "export", "ranks"},
    "steps that return dicts or None": {"ranks"},  # which Lightning refuses
    "nested dicts with texts": {"export"},
    "no validation and no test": {"evaluate", "predict"},
}


@pytest.fixture
def kind(request: pytest.FixtureRequest, project: Path) -> str:
    name: str = request.param
    source = (Path(__file__).parent / "parts.py").read_text()
    if name.startswith("lightning for"):
        source = source.replace("import pytorch_lightning as pl", "import lightning as pl")
        source = source.replace("from pytorch_lightning.callbacks", "from lightning.pytorch.callbacks")
    slow = "class Slow(Callback):\n    def on_train_batch_end(self, *args):\n        import time; time.sleep(0.05)\n"
    (project / "parts.py").write_text(f"{source}\n\n{slow}")
    nodes, defaults = dict(KINDS[name]), ["/train"]
    for group in ("data", "model", "optimizer", "task"):
        if group in nodes:
            (project / "conf" / group).mkdir(parents=True)
            (project / "conf" / group / "own.yaml").write_text(yaml.safe_dump(nodes.pop(group)))
            defaults.append({f"override /{group}": "own"})  # type: ignore[arg-type]
    nodes["trainer"] = {"max_epochs": 3, "accelerator": "cpu", **nodes.get("trainer", {})}
    nodes["callbacks"] = {"slow": {"_target_": "parts.Slow"}, **nodes.get("callbacks", {})}
    (project / "experiments").mkdir()
    (project / "experiments/own.yaml").write_text(
        yaml.safe_dump({"defaults": [*defaults, "_self_"], **nodes})
    )
    return name


def cell(ended: Ended, equal: str = "", different: str = "") -> str:
    """What a command did: `works`, `equal to the bit`, `one line`, or what is wrong with it."""
    said = ended.out + ended.err
    if "Traceback" in said or "fault of Regente" in said:
        return f"WRONG: {' '.join(ended.err.split())[-400:]}"
    if ended.code == 0:
        if equal and equal in said:
            return "equal to the bit"
        return f"WRONG: {' '.join(said.split())[-400:]}" if different and different in said else "works"
    return f"one line: {ended.lines[0][:200]}" if len(ended.lines) == 1 else f"WRONG: {ended.err[-400:]}"


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_each_command_works_or_says_in_a_line_why_not(
    kind: str, regente: Run, start: Start, project: Path
) -> None:
    np.save(project / "x.npy", np.zeros((3, 8), np.float32))
    words = ["train", "own", "tracking=none", "callbacks.resume.every_minutes=0"]
    cells = {"train": cell(regente(*words))}
    whole = jobs(project)
    if cells["train"] == "works":
        cells["evaluate"] = cell(regente("evaluate", str(whole[0])), "equal to the bit", "differs")
        cells["predict"] = cell(regente("predict", str(whole[0]), "x.npy"))
        if cells["predict"] != "works":
            cells["predict"] = cell(regente("predict", str(whole[0])))
        cells["export"] = cell(regente("export", str(whole[0])))
        cells["rerun"] = cell(regente("rerun", str(whole[0]), "--verify"), "equal to the bit")
        cells["resume"] = killed_and_resumed(words, regente, start, project, whole[0])
        cells["sweep"] = cell(regente(*words, "-m", "seed=1,2"))
        cells["ranks"] = cell(regente(*words, "trainer.devices=2", "trainer.strategy=ddp"))
    TABLE.mkdir(parents=True, exist_ok=True)
    (TABLE / f"{list(KINDS).index(kind):02}.json").write_text(json.dumps({"kind": kind, **cells}))
    shutil.rmtree(project / "runs", ignore_errors=True)
    assert not {column: found for column, found in cells.items() if found.startswith("WRONG")}
    assert {column for column, found in cells.items() if found.startswith("one line")} == ONE_LINE.get(
        kind, set()
    )


def killed_and_resumed(words: list[str], regente: Run, start: Start, project: Path, whole: Path) -> str:
    others = set(jobs(project))
    process = start(*words)
    until(lambda: bool(set(jobs(project)) - others))
    (job,) = set(jobs(project)) - others
    until(lambda: states(job) > 1, 60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    found = cell(regente("resume", str(job)))
    if found != "works":
        return found
    try:
        assert_same(job, whole)
    except (AssertionError, KeyError, OSError) as error:
        return f"WRONG: other numbers: {str(error)[:300]}"
    return "equal to the bit"


def states(job: Path) -> int:
    return len(list((job / "resume").glob("step-*.ckpt")))
