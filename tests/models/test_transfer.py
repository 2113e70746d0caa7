"""A pretrained network with a new head."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_weights

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.errors import CheckpointError, ConfigError
from regente.models.transfer import Transfer
from regente.models.weights import load_model
from tests.conftest import Ended
from tests.training.test_fit import jobs

pytestmark = pytest.mark.slow  # not in `make quick`

Run = Callable[..., Ended]
SMALL = ["model=transfer", "model.backbone=squeezenet1_1", "model.weights=null", "data.batch_size=256"]
FAST = ["train", *SMALL, "trainer.max_epochs=1", "tracking=none"]
# One network of each family of torchvision's, the smallest, and the side of an image that it takes
FAMILIES = {
    "alexnet": 63, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32, "googlenet": 32, "inception_v3": 75,
    "maxvit_t": 224, "mnasnet0_5": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_x_400mf": 32,
    "resnet18": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32, "swin_t": 32, "vgg11_bn": 32, "vit_b_32": 32,
}  # fmt: skip
HEAVY = ("maxvit_t", "vgg11_bn", "alexnet", "vit_b_32", "inception_v3")


def make(backbone: str, side: int, **settings: Any) -> Transfer:
    model = Transfer(backbone, [3, side, side], 3, **{"weights": None, **settings})
    model.build_backbone()
    return model


def families() -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in FAMILIES]


@pytest.mark.parametrize("backbone", families())
def test_a_frozen_backbone_keeps_every_parameter_and_buffer_to_the_bit(backbone: str) -> None:
    model = make(backbone, FAMILIES[backbone]).train()
    assert model.backbone is not None
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    head = [parameter.clone() for parameter in model.head.parameters()]
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(p) for p in wanted} == {id(p) for p in model.head.parameters()}
    optimizer = torch.optim.AdamW(wanted, lr=0.1)
    x = torch.randn(2, 3, FAMILIES[backbone], FAMILIES[backbone])
    with torch.autocast("cpu", torch.bfloat16):
        nn.functional.cross_entropy(model(x).float(), torch.tensor([0, 1])).backward()
    optimizer.step()
    after = model.backbone.state_dict()
    assert all(torch.equal(after[key].contiguous(), value.contiguous()) for key, value in before.items())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert not all(map(torch.equal, head, model.head.parameters()))


def test_the_tutorials_head_has_as_many_parameters_as_in_keras() -> None:
    model = Transfer("vgg16", [3, 224, 224], 10, weights=None, hidden=[256])
    assert model.backbone is None
    assert sum(parameter.numel() for parameter in model.head.parameters()) == 6_425_354
    skeleton = model.origin.skeleton()
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == 14_714_688


def test_features_do_not_depend_on_the_batch_that_an_image_comes_in() -> None:
    model = make("mobilenet_v3_small", 32).eval()
    model.backbone_batch_size = 8
    x = torch.randn(19, 3, 32, 32)
    whole, order = model.features(x), torch.randperm(19)
    assert torch.equal(model.features(x[order]), whole[order])
    assert all(torch.equal(model.features(x[n : n + 1]), whole[n : n + 1]) for n in (0, 18))


def test_images_are_brought_to_the_mean_and_standard_deviation_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keep_published(tmp_path, monkeypatch, "squeezenet1_1")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    pixels = torch.rand(2, 3, 64, 64)
    found = []
    for own_mean, own_std in ((mean, std), ([0.5] * 3, [0.25] * 3)):
        model = make("squeezenet1_1", 64, weights="DEFAULT", mean=own_mean, std=own_std).eval()
        m, s = (torch.tensor(v).view(-1, 1, 1) for v in (own_mean, own_std))
        found.append(model.features((pixels - m) / s))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert "images are brought to the mean" in " ".join(model.notes)
    assert "224 pixels" in " ".join(model.notes)
    by_path = make("squeezenet1_1", 64, weights=str(file), mean=mean, std=std)
    assert by_path.origin.preprocessing.mean == mean


def keep_published(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, state: Any = None) -> Path:
    """Random weights under the name that torchvision downloads its own to, the hash taken for right."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(folder))
    monkeypatch.setattr("regente.models.backbones.weight_files.wanted_hash", lambda file: "")
    torch.manual_seed(5)
    file = folder / "checkpoints" / Path(get_model_weights(name).DEFAULT.url).name
    file.parent.mkdir(exist_ok=True)
    torch.save(state if state is not None else get_model(name, weights=None).state_dict(), file)
    return file


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "resnet18", "regnet_x_400mf", "swin_t", "googlenet"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_file_of_weights_is_what_the_network_gets(
    backbone: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(3)
    options = {"init_weights": True} if backbone == "googlenet" else {}
    state = get_model(backbone, weights=None, num_classes=7, **options).state_dict()
    file = tmp_path / f"own.{kind}"
    if kind == "pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    else:
        save_file({key: value.contiguous().clone() for key, value in state.items()}, file)
    model = make(backbone, 32, weights=str(file))
    assert model.backbone is not None
    own = model.backbone.state_dict()
    assert len(own) > 20
    assert all(torch.equal(value.contiguous(), state[key].contiguous()) for key, value in own.items())
    assert torch.isfinite(model(torch.randn(2, 3, 32, 32))).all()


def flipped(state: dict[str, torch.Tensor]) -> bytes:
    """The file of a state dict, with one bit changed in the middle."""
    file = BytesIO()
    torch.save(state, file)
    content = bytearray(file.getvalue())
    content[len(content) // 2] ^= 1
    return bytes(content)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, good = tmp_path / "own.pth", get_model("squeezenet1_1", weights=None).state_dict()
    name = "features.0.weight"
    cases = {
        r"no such file": None,
        r"damaged": b"PK\x03\x04 torn",
        r"damaged; .* has changed": flipped(good),
        r"1 missing: features.0.weight": {key: value for key, value in good.items() if key != name},
        r"1 left over: features.99.weight": good | {"features.99.weight": torch.zeros(1)},
        r"features.0.weight is \[1, 1\] instead of \[64, 3, 3, 3\]": good | {name: torch.zeros(1, 1)},
        r"no weights in it": {"epoch": 3},
        r"refused, it holds more than tensors": {"model": nn.Linear(1, 1)},
    }
    for message, content in cases.items():
        file.unlink(missing_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        with pytest.raises(CheckpointError, match=message):
            make("squeezenet1_1", 32, weights=str(file))


def test_what_is_not_known_is_said_with_what_is_close() -> None:
    with pytest.raises(ConfigError, match="resnet81: no such network; did you mean resnet18"):
        make("resnet81", 32)
    with pytest.raises(
        ConfigError, match="IMAGENET1K_V9: resnet18 has no such weights; did you mean IMAGENET1K_V1"
    ):
        make("resnet18", 32, weights="IMAGENET1K_V9")
    with pytest.raises(ConfigError, match=r"densenet121: does not take inputs of \[3, 16, 16\]"):
        make("densenet121", 16)
    with pytest.raises(ConfigError, match="images of 2 channels; the network takes 3"):
        Transfer("resnet18", [2, 32, 32], 3, weights=None)


def test_weights_that_cannot_be_downloaded_are_asked_for_in_one_line(regente: Run, project: Path) -> None:
    ended = regente(
        *["train", "model=transfer", "tracking=none"],
        env={"TORCH_HOME": str(project / "torch"), "https_proxy": "http://127.0.0.1:9"},
    )
    assert ended.code == 5
    (line,) = ended.lines
    assert "resnet18-f37072fd.pth is not in" in line
    assert str(project / "torch/hub/checkpoints") in line
    assert "model.weights=null for random weights" in line


def test_a_damaged_download_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / Path(get_model_weights("resnet18").DEFAULT.url).name
    file.parent.mkdir()
    file.write_bytes(b"half")
    with pytest.raises(CheckpointError, match="damaged, its SHA-256 does not start with f37072fd"):
        make("resnet18", 32, weights="DEFAULT")


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_checkpoint_holds_the_head_and_the_config_the_backbone(
    precision: str, regente: Run, project: Path
) -> None:
    ended = regente(*FAST, "trainer=cpu", f"trainer.precision={precision}", "model.feature_bank=null")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    result = json.loads((job / "result.json").read_text())
    content = torch.load(result["best_checkpoint"], weights_only=True)
    assert set(content["state_dict"]) == {"model.head.0.weight", "model.head.0.bias"}
    from regente.jobs.job import open_job

    model = load_model(open_job(job), Path(result["best_checkpoint"]))
    fresh = instantiate(resolve(compose("digits_cnn", SMALL).node)["model"], _convert_="all")
    assert isinstance(model, Transfer)
    assert model.backbone is not None
    own, first = model.backbone.state_dict(), fresh.build_backbone().state_dict()
    assert all(torch.equal(own[key], value) for key, value in first.items())


def test_ones_own_run_is_a_backbone(regente: Run, project: Path) -> None:
    assert regente("train", "digits_cnn", "trainer.max_epochs=1", "tracking=none").code == 0
    ended = regente(
        "train", "model=transfer", "model.backbone=run:digits_cnn", "trainer.max_epochs=1", "tracking=none"
    )
    assert ended.code == 0, ended.err
    (before,) = [job for job in jobs(project) if "backbone" not in (job / "config.yaml").read_text()]
    (job,) = [job for job in jobs(project) if job != before]
    # which run it was is kept, whatever is trained later
    assert f"backbone: run:{before.relative_to(project)}" in (job / "config.yaml").read_text()
    from regente.jobs.job import open_job

    result = json.loads((job / "result.json").read_text())
    model = load_model(open_job(job), Path(result["best_checkpoint"]))
    assert isinstance(model, Transfer)
    assert model.backbone is not None
    assert model.width == 576
    saved = torch.load(json.loads((before / "result.json").read_text())["best_checkpoint"], weights_only=True)
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"model.{key}"])
    for value in model.backbone.parameters():  # as fine-tuning may
        value.detach().zero_()
    for key, value in model.origin.build().state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"model.{key}"])


def test_a_run_that_is_not_there_is_said(regente: Run) -> None:
    ended = regente("train", "model=transfer", "model.backbone=run:nothing", "tracking=none")
    assert ended.code == 6
    assert "run nothing: no such run here" in ended.err


@pytest.mark.slow
def test_timms_networks_have_a_new_head_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(2)
    state = timm.create_model("mobilenetv3_small_050", num_classes=4).state_dict()
    torch.save(state, tmp_path / "own.pth")
    model = make("timm:mobilenetv3_small_050", 32, weights=str(tmp_path / "own.pth"))
    assert model.backbone is not None
    assert all(torch.equal(value, state[key]) for key, value in model.backbone.state_dict().items())
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(ConfigError, match="timm has no such network; close: mobilenetv3"):
        make("timm:mobilenetv3_tiny", 32)
