"""What stands at the root of people's configs: variables of their own, keys of other projects, their own files."""

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from regente.config.interpolation import JOB_DIR, without_resolvers
from regente.config.overrides import quoted
from regente.errors import ConfigError
from regente.jobs.job import freeze
from regente.training.frozen import open_frozen
from regente.training.prepare import check, compose

MINE = """
defaults: [/train, _self_]
paths: {data: 500}
shared: {out: "${hydra:runtime.output_dir}", name: "${hydra:job.name}", epochs: "${twice:${vars.x}}"}
vars: {x: 3}
task_name: train
extras: {print_config: true}
logger: {table: {_target_: lightning.pytorch.loggers.CSVLogger, save_dir: .}}
tags: [dev, first]
notes: a try
ckpt_path: null
train: true
test: false
seed: null
trainer:
  max_epochs: ${shared.epochs}
  default_root_dir: ${shared.out}
  strategy: ddp_spawn
  enable_progress_bar: true
  logger: {_target_: pytorch_lightning.loggers.CSVLogger, save_dir: a}
  callbacks: [{_target_: pytorch_lightning.callbacks.ModelSummary}]
tracking: {run_name: "${shared.name}"}
"""
RESOLVERS = "from omegaconf import OmegaConf\nOmegaConf.register_new_resolver('twice', lambda x: 2 * x, replace=True)\n"


def experiment(project: Path, text: str) -> None:
    (project / "experiments").mkdir(exist_ok=True)
    (project / "experiments/mine.yaml").write_text(text)


def refusal(*words: str, name: str = "mine") -> str:
    with pytest.raises(ConfigError) as raised:
        check(compose(name, words).node)
    return str(raised.value)


def test_variables_and_keys_of_other_projects_mean_what_they_mean_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    experiment(project, MINE)
    told = "trainer.max_epochs: refers to ${shared.epochs}, but there is no such resolver"
    assert told in refusal()
    (project / "own_resolvers.py").write_text(RESOLVERS)
    (project / "pyproject.toml").write_text('[tool.regente]\nresolvers = ["own_resolvers"]\n')
    composed = compose("mine", ["vars.x=4"])
    config = check(composed.node)
    assert config["trainer"]["max_epochs"] == 8
    assert config["trainer"]["limit_test_batches"] == 0
    assert config["trainer"]["strategy"] == "ddp"
    assert config["seed"] == 0
    assert list(config["loggers"]) == ["table", "trainer_0"]
    assert (config["tracking"]["tags"], config["tracking"]["notes"]) == (["dev", "first"], "a try")
    assert config["tracking"]["run_name"] == "mine"
    assert list(config["callbacks"]) == ["checkpoint", "resume", "trainer_0"]
    assert not {"task_name", "extras", "ckpt_path", "train", "test", "tags"} & set(config)
    monkeypatch.setenv(JOB_DIR, "")  # restored after the test
    facts: dict[str, Any] = {"experiment": "mine", "overrides": [], "command": [], "choices": {}}
    job, config = open_frozen(freeze(composed.yaml(), project / "runs", **facts).path)
    assert config["trainer"]["default_root_dir"] == str(job.path) == os.environ[JOB_DIR]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+logger=wandb"], "logger: Lightning's loggers are the group loggers"),
        (["+ckpt_path=a.ckpt"], "ckpt_path: regente resume RUN goes on"),
        (["+train=false"], "train: regente evaluate RUN"),
        (["+optimized_metric=val/acc"], "optimized_metric: monitor.metric"),
        (["lr=1e-3"], "lr: no such setting; did you mean optimizer.lr?"),
        (["experiment=a"], "experiment: is the first word"),
        (["runs_dir=/x"], "runs_dir: runs are made in ./runs"),
        (["foo=3"], "foo: no such setting; a variable of your own goes to vars.foo"),
        (["monitor.mode=up"], "monitor.mode=up: must be min or max"),
        (["seed=${hydra:job.num}"], "seed: refers to ${hydra:job.num}, which a job has not here"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("project")
def test_a_key_that_means_nothing_here_is_answered_in_one_line(words: list[str], told: str) -> None:
    (line,) = refusal(*words, name="digits_mlp").splitlines()
    assert line.startswith(told), line


def test_own_files_in_the_place_of_the_packaged_ones_lose_nothing_in_silence(project: Path) -> None:
    folder = project / "conf/callbacks"
    folder.mkdir(parents=True)
    (folder / "default.yaml").write_text("only: {_target_: pytorch_lightning.callbacks.ModelSummary}\n")
    assert list(compose("digits_mlp", []).node.callbacks) == ["only", "checkpoint", "resume"]
    assert compose("digits_mlp", ["+callbacks.resume=null"]).node.callbacks.resume is None
    assert not compose("digits_mlp", ["callbacks=none"]).node.callbacks
    for text, told in (
        ("defaults: [{data: digits}, _self_]\nseed: 1\n", "has not the groups of this experiment"),
        ("defaults: [train, _self_]\nseed: 1\n", "includes itself"),
    ):
        (project / "conf/train.yaml").write_text(text)
        (line,) = refusal(name="digits_mlp").splitlines()
        assert told in line and "move it to experiments/NAME.yaml" in line


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("data.root=~/photos,~/b", "data.root='~/photos','~/b'"),
        ("data.root=Größe", "data.root='Größe'"),
        ("init_from=runs/a/epoch=0-step=20.ckpt", "init_from='runs/a/epoch=0-step=20.ckpt'"),
        *((same, same) for same in ("a=1", "a=[1", "a='x=y'", "x= =3", "a=${x}", "~a.b", "a=b c")),
    ],
)
def test_a_value_that_hydra_reads_only_in_quotes_is_quoted(typed: str, read: str) -> None:
    assert quoted(typed) == read


def test_what_is_typed_arrives(project: Path) -> None:
    config: Any = compose("digits_mlp", ["data.root=Größe", "model={widths: [8]}", "+vars.folder=~/a=b"]).node
    assert (config.data.root, config.vars.folder, config.model.widths) == ("Größe", "~/a=b", [8])


@pytest.mark.parametrize(
    "word", ["trainer.strategy", "seed", "+tags", "+test", "+ckpt_path", "trainer.callbacks"]
)
@pytest.mark.usefixtures("project")
def test_a_reference_that_leads_nowhere_is_one_line_in_any_key(word: str) -> None:
    line, *_ = refusal(f"{word}=${{nope}}", name="digits_mlp").splitlines()  # data.seed refers to seed
    assert line == f"{word.lstrip('+')}: refers to ${{nope}}, but nope does not exist"


def test_keys_that_others_refer_to_stay(project: Path) -> None:
    text = "defaults: [/train, _self_]\ntags: [a]\nnotes: try\ntest: false\nvars: {tested: '${test}'}\n"
    experiment(project, text + "tracking: {run_name: 'run-${tags}-${notes}'}\n")
    config = check(compose("mine", []).node)
    assert config["tracking"]["run_name"] == "run-['a']-try"
    assert (config["tracking"]["tags"], config["tracking"]["notes"]) == (["a"], "try")
    assert (config["vars"]["tested"], config["trainer"]["limit_test_batches"]) == (False, 0)


def test_each_call_of_a_resolver_is_fixed_and_the_environment_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    OmegaConf.register_new_resolver("odd", lambda x: 2 * int(x) + 1, replace=True)
    monkeypatch.setenv("USER_NAME", "me")
    value = "${odd:3}-${oc.env:USER_NAME}-${odd:${n}}"
    node = without_resolvers(OmegaConf.create({"n": 4, "a": value, "rows": [value], "b": "${odd:1}"}))
    fixed = "7-${oc.env:USER_NAME}-9"
    assert OmegaConf.to_container(node) == {"n": 4, "a": fixed, "rows": [fixed], "b": 3}
    assert node.a == "7-me-9"
