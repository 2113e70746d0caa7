"""A recorded config is data: what is not made of trusted parts is refused before anything of it runs."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from mlflow.tracking import MlflowClient

from regente.config.compose import compose
from regente.config.discovery import experiment_files, groups
from regente.config.interpolation import resolve
from regente.config.trusted_names import is_own
from regente.errors import ConfigError
from regente.jobs.job import Job, freeze, open_job, read_json, refreeze, write_json
from regente.jobs.process_identity import ProcessIdentity, process_identity
from regente.jobs.signature import key_file
from regente.jobs.trust import (
    inside,
    made_by_user,
    read_config,
    require_known_env,
    require_trusted,
    require_trusted_job,
    trusted_overrides,
)
from tests.config.test_every_config import BESIDE, FITTING, NEEDED

Node = dict[str, Any]
MARK = "canary"  # what a hostile config that has its way leaves in the folder


class Payload:
    """Unpickled, it runs a program."""

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {MARK}",)


def call(target: str, *args: Any, **settings: Any) -> Node:
    return {"_target_": target, **({"_args_": list(args)} if args else {}), **settings}


TOUCH = f"touch {MARK}"
LINEAR = call("torch.nn.Linear", in_features=2, out_features=2)
CHECKPOINT = call("pytorch_lightning.callbacks.ModelCheckpoint", monitor="val/acc")
HOSTILE: dict[str, Node] = {
    "os.system": call("os.system", TOUCH),
    "os.system by the name of another module": call("logging.os.system", TOUCH),
    "os.system by a trusted package's import": call("torch.nn.modules.module.os.system", TOUCH),
    "posix.system": call("posix.system", TOUCH),
    "a subprocess": call("subprocess.run", ["touch", MARK]),
    "a class that is a subprocess": call("subprocess.Popen", ["touch", MARK]),
    "open": call("builtins.open", MARK, "w"),
    "open of another module": call("codecs.open", MARK, "w"),
    "a class that opens a file": call("logging.FileHandler", MARK),
    "a method of a path": call("pathlib.Path.touch", call("pathlib.Path", MARK)),
    "exec": call("builtins.exec", f"open('{MARK}', 'w')"),
    "eval": call("builtins.eval", f"open('{MARK}', 'w')"),
    "getattr": call("builtins.getattr", call("importlib.import_module", "payload"), "Net"),
    "an import": call("importlib.import_module", "payload"),
    "a file run": call("runpy.run_path", "payload.py"),
    "a browser": call("webbrowser.BackgroundBrowser", ["touch", MARK]),
    "functools.partial": call("functools.partial", call("builtins.open", MARK, "w")),
    "_partial_ of a function": call("os.system", TOUCH, _partial_=True),
    "types.FunctionType": call("types.FunctionType", call("builtins.compile", "1", "x", "eval"), {}),
    "torch.load of a pickle": call("torch.load", "evil.pt", weights_only=False),
    "torch.load by a trusted package's import": call(
        "torch.nn.modules.module.torch.load", "evil.pt", weights_only=False
    ),
    "numpy.load of a pickle": call("numpy.load", "evil.npy", allow_pickle=True),
    "joblib.load": call("joblib.load", "evil.pkl"),
    "pandas.read_pickle": call("pandas.read_pickle", "evil.pkl"),
    "pickle.load": call("pickle.load", call("builtins.open", "evil.pkl", "rb")),
    "a checkpoint unpickled by Lightning": call(
        "pytorch_lightning.LightningModule.load_from_checkpoint", "evil.pt", weights_only=False
    ),
    "torch.save": call("torch.save", 1, MARK),
    "numpy.save": call("numpy.save", MARK, [1]),
    "numpy.savetxt by a trusted package": call("torchvision.transforms.functional.np.savetxt", MARK, [1]),
    "torch.hub of a folder": call("torch.hub.load", ".", "net", source="local"),
    "torch.jit": call("torch.jit.load", "evil.pt"),
    "torch.package": call("torch.package.PackageImporter", "evil.pt"),
    "C++ compiled": call("torch.utils.cpp_extension.load_inline", name="x", cpp_sources="int x;"),
    "a process group": call("torch.distributed.TCPStore", "127.0.0.1", 0, 1, True),
    "a copy": call("shutil.copy", "payload.py", MARK),
    "Hydra's own instantiate": call("hydra.utils.instantiate", call("builtins.open", MARK, "w")),
    "OmegaConf.save": call("omegaconf.OmegaConf.save", {"a": 1}, MARK),
    "an MLflow model": call("mlflow.pyfunc.load_model", "evil"),
    "a job frozen": call(
        "regente.jobs.job.freeze", "x", call("pathlib.Path", MARK), "n",
        experiment="x", overrides=[], command=[], choices={},
    ),
    "a file written by Regente": call("regente.jobs.job.write_json", call("pathlib.Path", MARK), 1),
    "a program started by Regente": call("regente.training.launch._wait", ["touch", MARK]),
    "a program asked by Regente": call("regente.tracking.provenance.code", ["touch", MARK]),
    "a class of Regente that is no part": call("regente.tracking.journal.Journal", call("pathlib.Path", MARK)),
    "a function of the user's": call("own.wipe"),
    "a class of the user's that is no part": call("own.Cleaner"),
    "an object of the user's that can be called": call("own.cleaner"),
    "what the user's module imports": call("own.Popen", ["touch", MARK]),
    "a module of a job directory": call("runs.evil.payload.Net"),
    "a package with a job directory in it": call("download.payload.Net"),
    "a module named like a library of Python's": call("this.Net"),
    "a dunder": call("torch.nn.Module.__init_subclass__"),
    "builtins of a trusted module": call("torch.nn.modules.module.__builtins__.open", MARK, "w"),
    "no name": call("torch.nn.Linear;own.wipe"),
    "letters that look like others": call("torch.nn.\uff2c\uff49\uff4e\uff45\uff41\uff52", 2, 2),
    "a trusted function that is no model": call("torchvision.models.get_model", "resnet18"),
    "a method": call("torch.nn.Linear.from_float", LINEAR),
    "in a list": call("torch.nn.Sequential", LINEAR, call("os.system", TOUCH)),
    "in a list in a list": call("torch.nn.Sequential", LINEAR, x=[[{"y": call("builtins.open", MARK, "w")}]]),
    "left for later": call("torch.nn.Identity", _recursive_=False, x={"y": call("builtins.open", MARK, "w")}),
    "a name that is none": {"_target_": ["os.system"]},
    "a setting that Hydra will have": call("torch.nn.Identity", _execution_whitelist_=["os.system"]),
    "a reference in the plain config": call("torch.nn.Identity", x="${oc.env:HOME}"),
    "an object": call("torch.nn.Identity", x=Payload()),
}  # fmt: skip
ELSEWHERE: dict[str, Node] = {
    "checkpoints elsewhere": {"callbacks": {"x": {**CHECKPOINT, "dirpath": "/home/x"}}},
    "checkpoints above": {"callbacks": {"x": {**CHECKPOINT, "dirpath": "../../conf/model"}}},
    "a folder of another callback": {"callbacks": {"x": {"_target_": "own.Saves", "dirpath": "conf/model"}}},
    "checkpoints over those of another run": {"callbacks": {"x": {**CHECKPOINT, "filename": "../../a/last"}}},
    "a callback that calls": {"callbacks": {"x": call("pytorch_lightning.callbacks.LambdaCallback")}},
    "a profile elsewhere": {"trainer": {"_target_": "pytorch_lightning.Trainer", "profiler": "/etc/x"}},
    "another's server": {"tracking": {"uri": "https://evil.example/"}},
    "another's database": {"tracking": {"uri": "postgresql://evil.example/x"}},
    "a database elsewhere": {"tracking": {"uri": "sqlite:////home/x.db"}},
    "a database above": {"tracking": {"uri": "sqlite:///../x.db"}},
}
TEXTS = {
    "a secret of the environment": "data: {x: '${oc.env:AWS_SECRET_ACCESS_KEY}'}",
    "a secret, by a name that is put together": "data: {x: '${oc.env:${y}}'}\ny: AWS_SECRET_ACCESS_KEY",
    "a secret, decoded": "data: {x: '${oc.decode:${oc.env:GITHUB_TOKEN}}'}",
    "another resolver": "data: {x: '${now:%Y}'}",
    "a reference twice": "data: {x: '\\${oc.env:HOME}'}",
    "the store's password by the way": "data: {x: '${tracking.uri}'}\ntracking: {uri: x}",
    "aliases": "data: {x: &a [1], y: *a}",
    "pairs, which a reference is read through": "data: {p: !!pairs [a: '${oc.env:GITHUB_TOKEN}'], x: '${data.p[0][1]}'}",
    "an object": f"data: !!python/object/apply:os.system ['{TOUCH}']",
    "no YAML": "data: {",
    "a list": "- data",
    "very deep": "data: " + "[" * 600 + "]" * 600,
}
ORDINARY: dict[str, Node] = {
    "a model of ours": call("regente.models.mlp.MLP", input_shape=[1, 8, 8], num_classes=10, widths=[8]),
    "layers in a list": call(
        "torch.nn.Sequential", LINEAR, {"_target_": "torch.nn.ReLU", "inplace": True}, _convert_="all"
    ),
    "a function that torchvision lists": call("torchvision.models.resnet18", num_classes=3),
    "a class of torchvision": call("torchvision.models.MobileNetV2", num_classes=3),
    "a layer left open": call(
        "torchvision.models.mobilenet_v2", norm_layer=call("torch.nn.BatchNorm2d", _partial_=True, eps=1e-3)
    ),
    "an optimizer": call("torch.optim.AdamW", _partial_=True, lr=1e-3),
    "a scheduler": call("torch.optim.lr_scheduler.OneCycleLR", _partial_=True, max_lr=0.1),
    "checkpoints": CHECKPOINT,
    "a trainer": call("pytorch_lightning.Trainer", max_epochs=1, logger=False, accelerator="cpu"),
    "a model of the user's": call("own.Net", width=3),
    "augmentation": call("regente.data.augmentation.flip_crop.FlipCrop"),
    "data": call(
        "regente.data.digits.Digits",
        batch_size=32,
        num_classes=10,
        input_shape=[1, 8, 8],
        class_names=list("0123456789"),
        mean=[0.3],
        std=[0.4],
    ),
}


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's project, with a module of their own, and what strangers may have left in it."""
    monkeypatch.syspath_prepend(str(project))
    for module in ("own", "payload", "download", "download.payload", "runs", "hubconf"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    marks = f"import os\nos.system('{TOUCH}')\nfrom torch import nn\nclass Net(nn.Module): pass\n"
    own = (
        "from subprocess import Popen\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
        "class Cleaner:\n    def __init__(self): wipe()\n    def __call__(self): wipe()\n"
        f"def wipe(): open('{MARK}', 'w').close()\n"
        "cleaner = Cleaner.__new__(Cleaner)\n"
    )
    files = {"own.py": own, "payload.py": marks, "runs/evil/payload.py": marks, "hubconf.py": marks}
    files |= {"download/__init__.py": "", "download/payload.py": marks, "download/run/job.json": "{}"}
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    torch.save(Payload(), "evil.pt")
    Path("evil.pkl").write_bytes(pickle.dumps(Payload()))
    import numpy as np

    np.save("evil.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    return project


def build(config: Node, project: Path) -> Any:
    """What a recorded config becomes, if it is trusted."""
    require_trusted(config, project)
    return {key: instantiate(node, _convert_="all") for key, node in config.items()}


def content(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not {"__pycache__", "cache"} & set(path.parts)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_part_is_refused_and_has_no_effect(name: str, folder: Path) -> None:
    before = content(folder)
    for config in ({"model": HOSTILE[name]}, {"model": LINEAR, "callbacks": {"a": [{"b": HOSTILE[name]}]}}):
        with pytest.raises(ConfigError, match="refused") as refused:
            build(config, folder)
        assert all(len(str(problem)) < 500 for problem in refused.value.problems)
    assert content(folder) == before


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_leads_out_of_the_job_or_the_project_is_refused(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="refused"):
        require_trusted(ELSEWHERE[name], folder)


@pytest.mark.variant
def test_hydra_alone_lets_a_good_part_of_them_have_their_way(folder: Path) -> None:
    program = (
        "import json, os, sys, warnings; warnings.simplefilter('ignore')\n"
        "from pathlib import Path\nfrom hydra.utils import instantiate\nsys.path.insert(0, '.')\n"
        "nodes, effects = json.load(sys.stdin), []\n"
        "for name, node in nodes.items():\n"
        "    try: instantiate(node, _convert_='all')\n    except BaseException: pass\n"
        f"    found = [path for path in Path('.').glob('{MARK}*')]\n"
        "    effects += [name] * bool(found)\n"
        "    for path in found:\n        os.system(f'rm -r {path}')\n"
        "Path('effects').write_text(json.dumps(effects))\n"
    )
    nodes = {name: node for name, node in HOSTILE.items() if name not in ("an object", "C++ compiled")}
    subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(nodes), text=True, check=True, timeout=120
    )
    effects = json.loads(Path("effects").read_text())
    assert {"torch.load of a pickle", "numpy.load of a pickle", "joblib.load", "open"} <= set(effects)
    assert len(effects) >= 15, effects


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_part_is_built(name: str, folder: Path) -> None:
    assert build({"model": ORDINARY[name]}, folder)["model"] is not None


def frozen(text: str, project: Path) -> Job:
    """A job from elsewhere."""
    return unsigned(freeze(text, project / "runs", experiment="x", overrides=[], command=[], choices={}))


def unsigned(job: Job) -> Job:
    write_json(job.path / "job.json", {**read_json(job.path / "job.json"), "signature": ""})
    return open_job(job.path)


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text_is_refused_before_it_is_resolved(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(variable, "hunter22")
    with pytest.raises(ConfigError) as refused:
        read_config(frozen(TEXTS[name], folder), folder, ["data"])
    assert "hunter22" not in str(refused.value)
    assert not (folder / MARK).exists()


@pytest.mark.parametrize("name", ["MYSQL_PWD", "DATABASE_URL", "GH_PAT", "OPENAI_KEY", "ANYTHING"])
def test_a_found_run_reads_no_variable_that_is_not_allowed_by_name(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"it reads \\${name}"):
        read_config(frozen(f"data: {{a: '${{oc.env:{name},c}}'}}", folder), folder, ["data"])


def test_what_a_run_of_ones_own_reads_of_the_environment_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")
    monkeypatch.setenv("REGENTE_SECRET_0a1b2c3d", "1234")
    text = "data: {a: '${oc.env:DATA_ROOT}/x', b: '${oc.env:CACHE_DIR,c}', d: '${data.a}', e: '${.a}', "
    text += "f: '${oc.decode:${oc.env:REGENTE_SECRET_0a1b2c3d}}'}\n"
    text += "tracking: {uri: 'https://ann:${oc.env:PASSWORD}@server'}"
    expected = {"a": "/data/x", "b": "c", "d": "/data/x", "e": "/data/x", "f": 1234}
    assert read_config(frozen(text, folder), folder, ["data"]) == {"data": expected}


@pytest.mark.parametrize(
    "uri", [None, "sqlite:///mlflow.db", "http://127.0.0.1:5000", "https://mine.example/"]
)
def test_the_projects_own_stores_are_trusted(
    uri: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mine.example/")
    assert is_trusted({"tracking": {"uri": uri}}, folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # without which the last one is anybody's
    assert is_trusted({"tracking": {"uri": uri}}, folder) == (uri != "https://mine.example/")


def is_trusted(config: dict[str, Any], folder: Path) -> bool:
    try:
        require_trusted(config, folder)
    except ConfigError:
        return False
    return True


def test_the_project_says_what_else_it_trusts_and_a_job_directory_says_nothing(folder: Path) -> None:
    file = folder / "pyproject.toml"
    file.write_text('[tool.regente]\ntrusted = ["own.Cleaner", "sklearn", "env:AWS_SECRET_ACCESS_KEY"]\n')
    build({"model": call("own.Cleaner")}, folder)
    assert (folder / MARK).exists()
    for target in ("own.wipe", "sklearn.utils.Bunch", "os.system", "torch.hub.load"):
        with pytest.raises(ConfigError, match="refused"):
            require_trusted({"model": call(target)}, folder)
    read_config(frozen("data: {x: '${oc.env:AWS_SECRET_ACCESS_KEY,y}'}", folder), folder, ["data"])
    (folder / "job.json").write_text("{}")
    for target in ("own.Cleaner", "own.Net"):
        with pytest.raises(ConfigError, match="not of a trusted package"):
            require_trusted({"model": call(target)}, folder)


def test_a_module_is_ones_own_where_it_lies_in_the_folder_that_one_starts_in(folder: Path) -> None:
    assert is_own("own.Net", folder)
    assert not is_own("own.Net", folder / "runs")
    assert not is_own("torch.nn.Linear", Path("/"))
    assert not is_own("numpy.ndarray", Path("/"))
    assert not is_own("nowhere.Net", folder)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/../../x", "/etc/passwd", "C:x", "C:\\x", "\\x", "~/x", "a\\..\\x", "out/x", "a\0"]
)  # fmt: skip
def test_a_name_that_leads_out_of_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="leads out"):
        inside(tmp_path / "in", name)
    assert inside(tmp_path / "in", "a/b..c/.d").is_relative_to(tmp_path / "in")


OWN = "data: {x: '${oc.env:DATA_TOKEN,y}', z: {_target_: os.system}}\n"


def test_a_job_of_ones_own_names_what_it_likes_until_it_is_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: Node = {
        "experiment": "x",
        "overrides": [],
        "command": [],
        "choices": {},
        "env": {"PYTHONPATH": "."},
    }
    job = freeze(OWN, folder / "runs", **facts)
    key = key_file()
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    def refusal(job: Job) -> str:
        """Why the job is refused; empty if it is not."""
        try:
            require_known_env(job)
            require_trusted_job(job, folder)
        except ConfigError as error:
            (problem,) = error.problems
            return str(problem)
        return ""

    assert read_config(job, folder, ["data"])["data"]["z"] == {"_target_": "os.system"}
    moved = job.path.rename(folder / "moved")
    job = open_job(moved)
    assert refusal(job) == ""
    assert refusal(refreeze(job, OWN + "y: 1\n", 1, {"y": "none -> 1"})) == ""
    assert "PYTHONPATH" in refusal(replace(job)) and "was changed since" in refusal(replace(job))
    other = open_job(moved)
    for changed in (
        {"project": "/evil"},
        {"experiment": "y"},
        {"overrides": ["hydra.searchpath=[file:///evil]"]},
    ):
        assert not made_by_user(replace(other, **changed)) and made_by_user(other)
    assert trusted_overrides(replace(other, overrides=["a=1", "++hydra.searchpath=[x]"])) == ["a=1"]
    job = open_job(moved)
    assert "PYTHONPATH" in refusal(replace(job, env={"PYTHONPATH": "evil"}))
    assert "it is not signed" in refusal(replace(job, signature="", env={}))
    key.chmod(0o644)  # others may know it
    assert "not on this machine" in refusal(replace(job, env={}))
    key.unlink()
    assert "not on this machine" in refusal(replace(job, env={}))
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    assert "another user made it" in refusal(replace(job, env={}))


def test_without_a_home_folder_jobs_are_made_but_not_signed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home in ("/dev/null", str(folder / "own.py")):
        monkeypatch.setenv("XDG_STATE_HOME", home)
        job = freeze("data: {x: 1}", folder / "runs", experiment="x", overrides=[], command=[], choices={})
        assert job.signature == "" and read_config(job, folder) == {"data": {"x": 1}}


SHIPPED = [(name, []) for name in experiment_files()]
SHIPPED += [
    (
        FITTING.get(choice, "digits_cnn"),
        [*BESIDE.get(choice[0], []), *["model=none"] * (choice == ("data", "none")), "=".join(choice)],
    )
    for choice in ((group, option) for group, options in groups().items() for option in options)
    if choice != ("loggers", "wandb")  # it sends to a server, so no found run may name it
]


@pytest.mark.parametrize(("experiment", "overrides"), SHIPPED, ids=lambda value: str(value))
def test_every_shipped_config_is_trusted(experiment: str, overrides: list[str], project: Path) -> None:
    option = overrides[-1].partition("=")[2] if overrides else experiment
    composed = compose(experiment, [*overrides, *NEEDED.get(option, [])])
    require_trusted(resolve(composed.node), project)
    assert read_config(frozen(composed.yaml(), project), project) == resolve(composed.node)


@pytest.mark.parametrize(
    "text", ["model: {_target_: builtins.open, file: canary, mode: w}", "model: ${x}\nx: 1"]
)
def test_a_hostile_job_directory_is_refused_by_the_program(
    text: str, regente: Callable[..., Any], project: Path
) -> None:
    job = frozen(f"{text}\ndata: {{input_shape: [1]}}\n", project / "runs")
    (job.path / "result.json").write_text(json.dumps({"best_checkpoint": "x.ckpt"}))
    (job.path / "vocabulary.txt").write_text("a\nb\n")
    job.checkpoints.mkdir()
    torch.save({"state_dict": {}}, job.checkpoints / "x.ckpt")
    ended = regente("generate", str(job.path))
    assert ended.code == 2 and not list(project.rglob(MARK)), ended.err


def test_a_checkpoint_that_holds_code_is_refused_with_what_it_holds(
    regente: Callable[..., Any], project: Path
) -> None:
    job = frozen("model: {_target_: torch.nn.Identity}\ndata: {input_shape: [1]}\n", project / "runs")
    (job.path / "result.json").write_text(json.dumps({"best_checkpoint": "x.ckpt"}))
    (job.path / "vocabulary.txt").write_text("a\nb\n")
    job.checkpoints.mkdir()
    torch.save(Payload(), job.checkpoints / "x.ckpt")
    ended = regente("generate", str(job.path))
    assert ended.code == 5 and "posix.system" in ended.err and len(ended.lines) == 1, ended.err
    assert not list(project.rglob(MARK))


def leave(job: Job, checkpoint: Any, **result: Any) -> Job:
    """Make a found directory look like a finished run."""
    (job.path / "result.json").write_text(json.dumps({"best_checkpoint": "x.ckpt", "metrics": {}, **result}))
    (job.path / "vocabulary.txt").write_text("a\nb\n")
    job.checkpoints.mkdir()
    torch.save(checkpoint, job.checkpoints / "x.ckpt")
    return job


@pytest.mark.parametrize("command", ["evaluate", "rerun", "resume", "fork"])
@pytest.mark.parametrize(
    ("overrides", "facts", "where"),
    [
        (["model._target_=posix.system"], {}, "posix.system"),
        (["+callbacks.x._target_=builtins.open", "+callbacks.x.file=canary"], {}, "builtins.open"),
        (["tracking.uri=http://evil.example"], {}, "evil.example"),
        ([], {"env": {"PYTHONPATH": "."}}, "PYTHONPATH"),
    ],
)
def test_the_commands_refuse_a_hostile_run(
    command: str, overrides: list[str], facts: Node, where: str, regente: Callable[..., Any], project: Path
) -> None:
    text = compose("digits_mlp", ["tracking=none", *overrides]).yaml()
    more = {"experiment": "x", "overrides": [], "command": [], "choices": {}, **facts}
    job = leave(unsigned(freeze(text, project / "runs", **more)), {"state_dict": {}})
    before = content(project)
    ended = regente(command, str(job.path))
    assert ended.code == 2 and where in ended.err and "Traceback" not in ended.err, ended.err
    assert content(project) - before <= {project / "out", project / "err"}


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_found_run_is_shipped_neither_to_its_own_server_nor_with_files_from_elsewhere(
    regente: Callable[..., Any], project: Path
) -> None:
    (project / "private.txt").write_text("hunter22")
    evil = project / "evil"
    subprocess.run(["git", "init", "-q", str(evil)], check=True)
    with (evil / ".git/config").open("a") as file:
        file.write(f'[filter "x"]\n\tclean = touch {project / MARK}; cat\n')
    (evil / ".gitattributes").write_text("* filter=x\n")
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    victim = client.create_run("0").info.run_id
    here = "sqlite:///mlflow.db"
    stores = ("http://127.0.0.2:1", "https://evil.example", here, here, here, here)
    for number, uri in enumerate(stores):
        text = compose("digits_mlp", [f"tracking.uri={uri}", "tracking.checkpoints=best"]).yaml()
        facts: Node = {"experiment": "x", "overrides": [], "command": [], "choices": {}}
        made = unsigned(freeze(text, project / "runs", str(number), **facts))
        job = leave(made, Payload(), best_epoch=None, epochs=1)
        owner = process_identity(os.getpid()) if number == 0 else ProcessIdentity("there", "another", 1, "1")
        (job.path / "process.json").write_text(json.dumps({**asdict(owner), "pid": 1, "started": "1"}))
        state = {"offset": 0, "ended": False, "problem": "", "refused": ""}
        state |= {"run_id": victim, "experiment_id": "0", "experiment": "x"} if number == 4 else {}
        (job.path / "recorded.json").write_text(json.dumps(state))
        (job.path / "folder").mkdir()
        (job.path / "folder/a.txt").write_text("a")
        for link in ("link.txt", "folder/link.txt") if number == 5 else ():
            (job.path / link).symlink_to(project / "private.txt")
        lines: list[Node] = [{"kind": "start", "experiment": "x", "name": "x", "params": {}, "tags": {}}]
        for path in (
            project / "private.txt",
            *(job.path / name for name in ("link.txt", "folder", "vocabulary.txt")),
        ):
            lines.append({"kind": "artifact", "path": str(path), "to": ""})
        result = {
            "metrics": {},
            "best_epoch": None,
            "best_checkpoint": str(project / "private.txt"),
            "epochs": 1,
        }
        lines.append({"kind": "result", **result, "samples_per_second": 0, "peak_megabytes": 0})
        lines.append({"kind": "end", "status": "FAILED"})
        (job.path / "journal.jsonl").write_text(
            "".join(json.dumps({**line, "time": 1}) + "\n" for line in lines)
        )
        if number == 3:
            facts = json.loads((job.path / "job.json").read_text())
            (job.path / "job.json").write_text(json.dumps({**facts, "project": str(evil)}))
    ended = regente("sync")
    assert ended.out.count("not shipped") == 4 and ended.code == 6, ended.out + ended.err
    assert "runs/5/link.txt: a pipe, a device or a link to elsewhere" in ended.out
    assert "shipped: runs/2" in ended.out and "shipped: runs/3" in ended.out
    assert f"{victim} is not the run of this job" in ended.out
    assert client.get_run(victim).info.status == "RUNNING"
    shipped = [path for path in (project / "mlartifacts").rglob("*") if path.is_file()]
    assert "vocabulary.txt" in {path.name for path in shipped}
    assert not any(b"hunter22" in path.read_bytes() for path in shipped)
    assert not list(project.rglob(MARK))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("job.json", "[" * 100_000),
        ("job.json", '{"path": "/"}'),
        ("job.json", "null"),
        ("job.json:env", ["PATH"]),
        ("job.json:env", {"PATH": 1}),
        ("job.json:overrides", [1]),
        ("job.json:experiment", 5),
        ("job.json:experiment", "\x1b]0;title\x07/../x"),
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", ""),
        ("result.json", '{"best_checkpoint": 5}'),
        ("result.json", "[" * 100_000),
    ],
)
def test_files_that_are_not_what_they_should_be_are_said_in_a_line(
    file: str, text: Any, regente: Callable[..., Any], project: Path
) -> None:
    config = compose("digits_mlp", ["tracking=none"]).yaml()
    facts = {"experiment": "x", "overrides": [], "command": [], "choices": {}}
    job = leave(freeze(config, project / "runs", **facts), {"state_dict": {}})
    name, _, key = file.partition(":")
    if key:
        text = json.dumps({**json.loads((job.path / name).read_text()), key: text})
    (job.path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for words in (("evaluate",), ("rerun", "--verify")):
        ended = regente(words[0], str(job.path), *words[1:])
        assert ended.code not in (0, None) and len(ended.lines) <= 8, ended.err
        assert "Traceback" not in ended.err and "\x1b" not in ended.err + ended.out, ended.err


def test_a_folder_to_predict_may_hold_pipes_and_devices(regente: Callable[..., Any], project: Path) -> None:
    import os

    assert regente("train", "digits_mlp", "trainer=debug", "tracking=none", "callbacks=default").code == 0
    (project / "images").mkdir()
    os.mkfifo(project / "images/pipe.npy")
    (project / "images/zero.npy").symlink_to("/dev/zero")
    (project / "images/\x1b[2J.npy").write_bytes(pickle.dumps(Payload()))
    ended = regente("predict", "latest", "images", timeout=60)
    assert ended.code == 4 and "\x1b" not in ended.err, ended.err
    assert len(ended.lines) == 2
    assert regente("predict", "latest", "images/pipe.npy", timeout=60).code == 4
    assert not list(project.rglob(MARK))


def test_what_a_job_says_it_has_found_is_numbers_of_two_settings_alone(project: Path) -> None:
    from regente.training.finders import found_before, with_found

    job = frozen(compose("digits_mlp", ["trainer.find_lr=true"]).yaml(), project)
    found = {
        "optimizer.lr": 0.25,
        "data.batch_size": "${oc.env:HOME}",
        "callbacks.x._target_": "posix.system",
    }
    (job.path / "found.json").write_text(json.dumps(found))
    assert found_before(job) == {"optimizer.lr": 0.25}
    config = with_found(job, found_before(job))
    assert config["optimizer"]["lr"] == 0.25 and set(config["callbacks"]) == {"checkpoint", "resume"}
