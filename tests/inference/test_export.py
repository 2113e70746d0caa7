"""A run's model as files: they answer as the run does, also without Regente, or they are refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from regente.data.digits import Digits
from regente.inference.model_card import data_licence
from tests.conftest import Ended
from tests.inference.test_predict import QUICK, original

Run = Callable[..., Ended]
ASK = """
import sys
sys.modules["regente"] = None
import numpy
x = numpy.load("x.npy")
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    ask = lambda x: onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": x})[0]
else:
    import torch
    model = torch.export.load(sys.argv[1]).module()
    ask = lambda x: model(torch.from_numpy(x)).detach().numpy()
numpy.save("y.npy", numpy.concatenate([ask(x), ask(x[:1])]))
"""


def exported(project: Path) -> Path:
    (folder,) = (project / "runs").glob("*/*/export")
    return folder


def asked_elsewhere(project: Path, file: Path) -> np.ndarray:
    """The answers of a file to all samples and to the first alone, in a process that has no Regente."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(file)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: np.ndarray = np.load(project / "y.npy")
    return answers


@pytest.mark.slow
def test_each_format_answers_as_the_run_does(regente: Run, project: Path) -> None:
    assert regente("train", "digits_cnn", *QUICK).code == 0
    x, y = original(project, "test", 7)
    np.save(project / "x.npy", x.numpy())
    right = torch.cat([y, y[:1]]).numpy()

    ended = regente("export", "digits_cnn", "--quantize", "int8")
    assert (ended.code, ended.err) == (0, "")
    assert "accuracy on 270 test samples" in ended.out
    assert np.abs(asked_elsewhere(project, exported(project) / "model.onnx") - right).max() < 1e-5
    assert np.abs(asked_elsewhere(project, exported(project) / "model-int8.onnx") - right).max() < 0.1
    sizes = [(exported(project) / name).stat().st_size for name in ("model-int8.onnx", "model.onnx")]
    assert sizes[0] < sizes[1] / 2
    card = (exported(project) / "README.md").read_text()
    for part in (
        "uint8 [B, 1, 28, 28]",
        "CC BY 4.0",
        "license: unknown",
        "test/acc",
        "model-int8.onnx",
        "onnxruntime",
    ):
        assert part in card
    assert json.loads((exported(project).parent / "data.json").read_text())["digest"] in card

    assert regente("export", "latest", "--format", "torch", "--out", "to_go").code == 0
    assert np.abs(asked_elsewhere(project, project / "to_go/model.pt2") - right).max() < 1e-5

    assert regente("export", "latest", "--format", "safetensors").code == 0
    with safe_open(exported(project) / "model.safetensors", "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert "regente.models.cnn.CNN" in file.metadata()["config"]
    best = json.loads((exported(project).parent / "result.json").read_text())["best_checkpoint"]
    state = torch.load(best, weights_only=True)["state_dict"]
    assert {f"model.{name}" for name in kept} == set(state)
    assert all(torch.equal(tensor, state[f"model.{name}"]) for name, tensor in kept.items())

    ended = regente("export", "latest", "--format", "torch", "--bound", "1e-30", "--out", "refused")
    assert ended.code in (0, 5)  # 0: equal to the bit
    assert (project / "refused/model.pt2").is_file() is (ended.code == 0)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["text_lstm", "series_direction", "series_forecast"])
def test_words_and_series_go_in_as_files_hold_them(experiment: str, regente: Run, project: Path) -> None:
    assert regente("train", experiment, *QUICK).code == 0
    x, y = original(project, "test", 5)
    np.save(project / "x.npy", x.numpy())
    ended = regente("export", "latest")
    assert (ended.code, ended.err) == (0, "")
    found = asked_elsewhere(project, exported(project) / "model.onnx")
    assert np.abs(found - torch.cat([y, y[:1]]).numpy()).max() < 1e-4 * max(1.0, float(y.std()))


def test_a_file_that_answers_otherwise_is_not_kept(regente: Run, project: Path) -> None:
    assert regente("train", "series_forecast", *QUICK).code == 0
    ended = regente("export", "latest", "--bound", "1e-30")
    assert ended.code == 5
    assert len(ended.lines) == 1 and "differ by" in ended.err and "1e-30 is allowed" in ended.err
    assert list(exported(project).iterdir()) == []


def test_what_cannot_be_exported_is_said_in_a_line(regente: Run, project: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 4)), draw.integers(0, 3, 40)
    np.savez(project / "own.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    (project / "moody.py").write_text(
        "from torch import nn\n"
        "class Moody(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(4, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.head(x) if x.sum().item() > 0 else -self.head(x)\n"
    )
    (project / "conf/model").mkdir(parents=True)
    (project / "conf/model/moody.yaml").write_text(
        "_target_: moody.Moody\nnum_classes: ${data.num_classes}\n"
    )
    own = [
        "data=arrays",
        f"data.path={project}/own.npz",
        "data.num_classes=3",
        "data.input_shape=[4]",
        "model=moody",
    ]
    assert regente("train", "digits_cnn", *QUICK, *own).code == 0
    ended = regente("export", "latest", "--format", "torch")
    assert ended.code == 1
    assert len(ended.lines) == 1 and "safetensors takes any model" in ended.err
    ended = regente("export", "latest", "--format", "torch", "--quantize", "int8")
    assert (ended.code, len(ended.lines)) == (2, 1)
    (project / "own.npz").unlink()
    ended = regente("export", "latest", "--format", "torch")
    assert ended.code == 4
    assert len(ended.lines) == 1 and "own.npz: no such file" in ended.err
    assert regente("export", "latest", "--format", "safetensors").code == 0


def test_without_the_extra_it_says_which_to_install(regente: Run, project: Path) -> None:
    assert regente("train", "digits_mlp", *QUICK).code == 0
    program = (
        "import sys\nsys.modules['onnxscript'] = None\nsys.argv = ['regente', 'export']\n"
        "from regente.cli.main import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert (
        done.stderr.strip()
        == "--format onnx: needs onnxscript, which is not installed; pip install onnxscript"
    )


def test_the_licence_of_the_data_is_what_its_module_says() -> None:
    digits = Digits(
        batch_size=8, num_classes=10, input_shape=[1, 28, 28], class_names=None, mean=[0.3], std=[0.3]
    )
    assert data_licence(digits) == "CC BY 4.0"
    assert data_licence(object()) == "unknown"
