import importlib
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from regente.config.signatures import NOT_LITERAL, read
from tests.config.signatures.conftest import REAL


@pytest.mark.filterwarnings("ignore")
def test_names_and_requiredness_are_those_of_the_imported_thing():
    for target in REAL:
        module, _, name = target.rpartition(".")
        thing = getattr(importlib.import_module(module), name)
        init = inspect.isclass(thing) and "__init__" in vars(thing)
        real = inspect.signature(inspect.unwrap(thing.__init__ if init else thing)).parameters.values()
        wanted = {
            p.name: p.default for p in [*real][init:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        found = read(target)
        required = {name: default is inspect.Parameter.empty for name, default in wanted.items()}
        assert {p.name: p.required for p in found.parameters.values()} == required, target
        literals = {n: p.default for n, p in found.parameters.items() if p.default is not NOT_LITERAL}
        assert literals == {name: wanted[name] for name in literals}, target
        assert found.open == any(p.kind is p.VAR_KEYWORD for p in real), target


def test_a_usual_config_is_read_without_torch_or_lightning():
    program = """
        import json, sys
        from regente.config.signatures import read
        given = {"pytorch_lightning.Trainer": {"precision": "16-mixed", "max_epochs": 3, "strategy": "auto"},
                 "torch.optim.AdamW": {"lr": 0.1},
                 "torch.optim.lr_scheduler.OneCycleLR": {"max_lr": 0.1},
                 "pytorch_lightning.callbacks.ModelCheckpoint": {"mode": "min"},
                 "pytorch_lightning.callbacks.EarlyStopping": {"mode": "min"}}
        for target, arguments in given.items():
            signature = read(target)
            assert all(signature.parameters[name].annotation.allows(v) for name, v in arguments.items())
        heavy = {"torch", "pytorch_lightning", "lightning_fabric", "numpy", "mlflow"}
        print(json.dumps(list(heavy & sys.modules.keys())))
    """
    path = os.pathsep.join([str(Path(__file__).parents[3] / "src"), os.environ.get("PYTHONPATH", "")])
    command, env = [sys.executable, "-c", textwrap.dedent(program)], os.environ | {"PYTHONPATH": path}
    assert json.loads(subprocess.run(command, capture_output=True, check=True, env=env).stdout) == []


def test_what_only_running_the_code_would_tell_is_unknown(package):
    name = package(__init__="def __getattr__(name): ...")
    for target in ("math.sqrt", "builtins.dict", "torch._C.Generator", f"{name}.Lazy"):
        found = read(target)
        assert (found.kind, found.open, found.name, found.parameters) == ("unknown", True, "", {}), target


def test_a_module_that_does_not_parse_raises_its_syntax_error(package):
    with pytest.raises(SyntaxError):
        read(f"{package(there='def it(:')}.there.it")
