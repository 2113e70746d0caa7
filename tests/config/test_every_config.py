"""Each file under conf/ and experiments/ composes, passes `check` and says in its first line what it is."""

import pytest

from regente.config.check import check
from regente.config.compose import compose
from regente.config.discovery import experiment_files, groups, header_comment
from regente.config.interpolation import resolve

pytestmark = pytest.mark.slow  # not in `make quick`

EXPERIMENTS = experiment_files()
PHOTOS = ["data.root=photos", "data.num_classes=2"]
TEXTS = ["data.path=texts.csv", "data.num_classes=2"]
OPTIONS = [(group, option) for group, options in groups().items() for option in options]
# Options that want others beside them, and an experiment that has those
FITTING = {
    ("data", "series"): "series_forecast",
    ("data", "direction"): "series_direction",
    ("model", "gru"): "series_direction",
    ("task", "regressor"): "series_forecast",
    ("data", "text"): "text_lstm",
    ("model", "lstm"): "text_lstm",
    ("task", "language_model"): "text_lstm",
    ("data", "text_classification"): "text_minilm",
    ("model", "text_transfer"): "text_minilm",
}
# Groups that only another choice brings
BESIDE = {f"hydra/sweeper/{group}": ["hydra/sweeper=optuna"] for group in ("sampler", "pruner")}
WITHOUT = [("data", "none"), ("model", "none"), ("optimizer", "none")]  # for a task that has its own
# What only a user can say
NEEDED = {
    "folder_cnn": PHOTOS,
    "photos_vgg16": PHOTOS,
    "photos_resnet18": PHOTOS,
    "head_sweep": PHOTOS,
    "image_folder": PHOTOS,
    "text_minilm": TEXTS,
    "text_classification": TEXTS,
    "text_transfer": TEXTS,
    "arrays": ["data.path=own.npz", "data.num_classes=10", "data.input_shape=[1,28,28]"],
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_composes_and_passes_check(experiment: str) -> None:
    assert check(resolve(compose(experiment, NEEDED.get(experiment, [])).node)) == []


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_into_a_fitting_experiment_and_passes_check(group: str, option: str) -> None:
    experiment = FITTING.get((group, option), "digits_cnn")
    own = ["task._target_=pytorch_lightning.LightningModule"] * ((group, option) in WITHOUT)
    own += ["model=none"] * ((group, option) == ("data", "none"))
    overrides = [*BESIDE.get(group, []), f"{group}={option}", *NEEDED.get(option, []), *own]
    assert check(resolve(compose(experiment, overrides).node)) == []


@pytest.mark.parametrize("file", [*EXPERIMENTS.values(), *(groups()[g][o] for g, o in OPTIONS)], ids=str)
def test_a_file_says_in_its_first_line_what_it_is(file: object) -> None:
    assert len(header_comment(file)) > 10  # type: ignore[arg-type]


def test_there_is_something_to_check() -> None:
    assert len(EXPERIMENTS) >= 3
    assert len(OPTIONS) >= 18
