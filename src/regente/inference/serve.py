"""`regente serve`: a run's model in MLflow's model server."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import NoReturn

import numpy as np

from regente.inference.export import FOLDER
from regente.inference.export_formats import samples
from regente.inference.predictor import LoadedRun, load_run
from regente.jobs.runs import Run
from regente.tracking.mlflow_internals import serving_command
from regente.tracking.store import prepare_mlflow
from regente.training.performance import channels_last

MODEL, REQUEST = "mlflow", "request.json"  # in FOLDER


def pack(run: Run) -> tuple[Path, Path]:
    """The folder of a run's model in MLflow's format, and a file with an example request; made if they do not exist.

    The model takes samples as files hold them. It is a torch.export program: loading it needs neither pickle nor
    Regente.
    """
    folder = run.job.path / FOLDER
    model, request = folder / MODEL, folder / REQUEST
    packed = folder / f".{MODEL}.{run.checkpoint.name}"  # a resumed run may have other weights
    if not (packed.is_file() and (model / "MLmodel").is_file() and request.is_file()):
        loaded = load_run(run)
        shutil.rmtree(model, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        _pack(loaded, model, request)
        packed.touch()
    return model, request


def _pack(loaded: LoadedRun, model: Path, request: Path) -> None:
    prepare_mlflow()
    import mlflow.pytorch
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    example, names = samples(loaded, "val", 2), loaded.class_names
    x = example.x.numpy()
    signature = ModelSignature(
        Schema([TensorSpec(x.dtype, (-1, *x.shape[1:]))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, *example.output.shape[1:]))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            channels_last(loaded.predictor),
            str(model),
            signature=signature,
            input_example=x,
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", "mlflow", "numpy"],
            metadata={"classes": names} if names else None,
        )
    request.write_text(json.dumps({"inputs": x.tolist()}), encoding="utf-8")


def start(model: Path, host: str, port: int) -> NoReturn:
    """Replace this process by MLflow's model server."""
    prepare_mlflow()
    command, env = serving_command(str(model), host, port)
    os.execve(command[0], command, env)
