"""`self.logger.experiment` of a task: the calls that people know from TensorBoard, Weights & Biases and MLflow."""

from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np

from regente.jobs import console
from regente.tracking.store import named

ENDINGS = ("flush", "close", "finish", "unwatch")  # there is nothing to do for them
IMAGE_AXES = {2: "HW", 3: "CHW"}  # by the number of axes, as TensorBoard has them


Method = Callable[..., None]


def forwarded(method: Method) -> Method:
    """A method that other loggers of the run get too, if they have it, such as TensorBoard's."""

    @wraps(method)
    def call(self: "Experiment", *args: Any, **kwargs: Any) -> None:
        method(self, *args, **kwargs)
        self._others(method.__name__, args, kwargs)

    return call


class Experiment:
    """Metrics and texts go to the journal, images and figures to the folder of the job whose files become artifacts.

    Any other method is that of MLflow's client on this run, with or without its first argument, the run's id.
    """

    def __init__(self, logger: Any, folder: Path) -> None:
        self._logger, self._folder = logger, folder
        self._unknown: set[str] = set()  # names that were asked for

    @forwarded
    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """A number at a step, as the others here with the signature of TensorBoard."""
        self._logger.record({tag: float(scalar_value)}, global_step or 0)

    @forwarded
    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None
    ) -> None:
        """Several numbers, named MAIN_TAG/NAME."""
        values = {f"{main_tag}/{name}": float(value) for name, value in tag_scalar_dict.items()}
        self._logger.record(values, global_step or 0)

    @forwarded
    def add_text(self, tag: str, text_string: str, global_step: int | None = None, *args: Any) -> None:
        """A text, as a file."""
        self._file(tag, global_step, "txt").write_text(text_string, encoding="utf-8")

    @forwarded
    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: Any = None,
        dataformats: str = "",
    ) -> None:
        """An image, as PNG."""
        write_image(self._file(tag, global_step, "png"), img_tensor, dataformats)

    @forwarded
    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: Any = None,
        dataformats: str = "NCHW",
    ) -> None:
        """A batch of images, each as PNG."""
        for number, image in enumerate(img_tensor):
            write_image(self._file(f"{tag}/{number}", global_step, "png"), image, dataformats[1:])

    @forwarded
    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """A figure of Matplotlib or several, as PNG."""
        for number, each in enumerate(figure if isinstance(figure, list) else [figure]):
            each.savefig(self._file(f"{tag}/{number}" if number else tag, global_step, "png"))

    @forwarded
    def add_hparams(
        self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Hyperparameters as params, with metrics."""
        self._logger.log_hyperparams(hparam_dict, metric_dict)

    @forwarded
    def log(self, data: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Numbers, as `wandb.log` takes them."""
        self._logger.record({name: float(value) for name, value in data.items() if _is_number(value)}, step)

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        """Hyperparameters as params."""
        self._logger.log_hyperparams(params, *args)

    log_params = log_hyperparams

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers, as the loggers of Lightning take them."""
        self.log(metrics, step)

    def log_metric(self, *args: Any, **kwargs: Any) -> None:
        """`key, value, step`, or those of MLflow's client: `run_id, key, value, timestamp, step`."""
        if self._names_run(args, kwargs):
            self.client.log_metric(*args, **kwargs)
        else:
            names = ("key", "value", "step")
            call = dict(zip(names, args, strict=False)) | kwargs
            self._logger.record({call["key"]: float(call["value"])}, call.get("step"))

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        """`key, images`, as the logger of Weights & Biases has it, or those of MLflow's client."""
        key, images = (
            kwargs.get("key", args[0] if args else None),
            kwargs.get("images", args[1] if len(args) > 1 else None),
        )
        if isinstance(key, str) and isinstance(images, list):
            for number, image in enumerate(images):
                name = f"{key}/{number}" if len(images) > 1 else key
                write_image(self._file(name, kwargs.get("step"), "png"), image)
        else:
            self._client_call("log_image", args, kwargs)

    def log_figure(self, *args: Any, **kwargs: Any) -> None:
        """`figure, file` or `file, figure`, with or without the run's id."""
        if len(args) == 2 and isinstance(args[0], str) and not kwargs:
            args = (args[1], args[0] if Path(args[0]).suffix else f"{args[0]}.png")
        self._client_call("log_figure", args, kwargs)

    @cached_property
    def client(self) -> Any:
        """MLflow's client, whose calls come back to the journal."""
        from mlflow.tracking import MlflowClient

        return MlflowClient()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._client_call(name, args, kwargs)

    def _client_call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from mlflow.tracking import MlflowClient

        if not hasattr(MlflowClient, name):
            if not self._others(name, args, kwargs) and name not in (*ENDINGS, *self._unknown):
                self._unknown.add(name)
                what = "is left out: Regente records no such thing; a logger of your own does (loggers.NAME._target_=...)"
                console.note(console.terminal(quiet=False), f"self.logger.experiment.{name} {what}")
            return None
        if not self._names_run(args, kwargs):
            args = (self._logger.run_id, *args)
        return getattr(self.client, name)(*args, **kwargs)

    def _others(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Call a method of the other loggers' experiments; returns how many have it."""
        found = [
            getattr(each.experiment, name, None)
            for each in self._logger.others
            if hasattr(each, "experiment")
        ]
        return sum(1 for method in found if method and (method(*args, **kwargs) or True))

    def _names_run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return "run_id" in kwargs or bool(
            args and isinstance(args[0], str) and args[0] == self._logger.run_id
        )

    def _file(self, tag: str, step: int | None, suffix: str) -> Path:
        name = named(tag) if step is None else f"{named(tag)}/step-{step:08d}"
        path = self._folder / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_image(path: Path, image: Any, axes: str = "") -> None:
    """Write an image of numbers, 0 to 1 or bytes, or what saves itself, such as one of Pillow, as PNG."""
    if save := getattr(image, "savefig", getattr(image, "save", None)):
        save(path)
    else:
        from PIL import Image

        array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
        if (axes or IMAGE_AXES[array.ndim]) == "CHW":
            array = array.transpose(1, 2, 0)
        if array.dtype != np.uint8:
            array = (array.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array).save(path)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.generic) or (
        hasattr(value, "item") and getattr(value, "numel", lambda: 0)() == 1
    )
