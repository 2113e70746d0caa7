"""The command line: what it prints, and that it prints it soon."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import Ended

Run = Callable[..., Ended]

HEAVY = ("numpy", "torch", "pytorch_lightning", "mlflow", "torchvision", "sklearn", "pandas")
USING = (
    "evaluate",
    "predict",
    "export",
    "serve",
    "generate",
    "rerun",
    "compare",
    "why",
    "importance",
    "report",
)  # commands that take the name of a run
PROBE = f"""
import json, sys
sys.argv = ["regente", *sys.argv[1:]]
from regente.cli.main import main
try:
    main()
finally:
    open("modules", "w").write(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


@pytest.mark.parametrize(
    "words",
    [["--help"], ["train", "--help"], ["list"], ["train", "--cfg", "job"], ["check"], ["train", "trainer.max_epoch=3"],
     ["train", "model=mpl"], ["train", "optimizer.lr=-1"], ["check", "trainer.precision=fp17"],
     ["train", "--info", "defaults"], ["check", "folder_cnn", "data.root=."],
     ["sweep", "--help"], ["sweep", "status", "nope"], ["train", "-m", "seed=1,2", "--dry-run"], ["predict", "nope", "x.png"],
     *([command, word] for command in USING for word in ("--help", "nope"))],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_no_training_answers_without_importing_torch(words: list[str], project: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", PROBE, *words], cwd=project, capture_output=True, timeout=60, check=False
    )
    assert json.loads((project / "modules").read_text()) == []


def test_help_of_every_command_has_an_example(regente: Run) -> None:
    for command in ("train", "check", "ui", *USING):
        assert (
            f"regente {command} " in regente(command, "--help").out.partition("Usage")[2].partition("\n")[2]
        )
    assert "regente train" in regente("--help").out


def test_list_names_experiments_groups_and_options_with_a_line_each(regente: Run) -> None:
    lines = regente("list").out.splitlines()
    assert any(line.startswith("  digits_cnn") and "(the default)" in line for line in lines)
    assert any(line.startswith("  onecycle") and "Smith and Topin" in line for line in lines)
    assert {"data", "model", "optimizer", "scheduler", "trainer", "callbacks", "tracking"} <= set(lines)


def test_cfg_job_prints_the_composed_config(regente: Run) -> None:
    config = yaml.safe_load(regente("train", "mnist_cnn", "optimizer.lr=0.5", "--cfg", "job").out)
    assert config["data"]["_target_"] == "regente.data.mnist.MNIST"
    assert config["optimizer"]["lr"] == 0.5
    assert "hydra" not in config
    assert (
        yaml.safe_load(regente("train", "--cfg", "job", "-p", "model", "--resolve").out)["num_classes"] == 10
    )
    assert "hydra" in yaml.safe_load(regente("train", "--cfg", "hydra").out)


def test_info_is_hydras_own(regente: Run) -> None:
    assert "cnn" in regente("train", "--info", "defaults").out
    assert str(Path("experiments")) in regente("train", "--info", "searchpath").out


def test_a_setting_that_the_class_takes_needs_no_plus(regente: Run) -> None:
    out = regente(
        "train", "--cfg", "job", "trainer.overfit_batches=2", "+trainer.profiler=simple", "~trainer.max_steps"
    ).out
    trainer = yaml.safe_load(out)["trainer"]
    assert trainer["overfit_batches"] == 2
    assert trainer["profiler"] == "simple"
    assert "max_steps" not in trainer


def test_the_first_word_without_an_equals_sign_is_the_experiment(regente: Run) -> None:
    assert yaml.safe_load(regente("train", "digits_mlp", "--cfg", "job").out)["trainer"]["max_epochs"] == 20
    assert yaml.safe_load(regente("train", "seed=3", "--cfg", "job").out)["seed"] == 3


def test_a_mistyped_command_is_answered_with_the_right_one(regente: Run) -> None:
    ended = regente("trian")
    assert ended.code == 2
    assert "did you mean train?" in ended.err


def test_the_ui_without_a_store_says_how_to_get_one(regente: Run) -> None:
    ended = regente("ui")
    assert ended.code == 2
    assert "regente train makes one" in ended.err


@pytest.mark.parametrize(
    ("line", "offer"),
    [("regente tr", "train"), ("regente resume la", "latest"), ("regente train mni", "mnist_cnn"),
     ("regente train model=", "model=mlp"),
     ("regente train digits_mlp optimizer.l", "optimizer.lr="), ("regente train digits_mlp sched", "scheduler=")],
)  # fmt: skip
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_offers_commands_experiments_groups_options_and_keys(
    line: str, offer: str, shell: str, project: Path
) -> None:
    words = line.split(" ")
    env = {
        **os.environ,
        "_REGENTE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    if shell == "fish":
        env["COMP_CWORD"] = words[-1]
    program = str(Path(sys.executable).with_name("regente"))
    done = subprocess.run(
        [program], env=env, cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert offer in done.stdout, done.stderr
