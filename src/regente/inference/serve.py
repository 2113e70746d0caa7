"""`regente serve`: a run's model in MLflow's model server."""

import json
import os
import shutil
import warnings
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

import numpy as np

from regente.inference.export_formats import samples
from regente.inference.predictor import LoadedRun, load_run
from regente.jobs.runs import Run
from regente.tracking.mlflow_internals import serving_command
from regente.tracking.store import prepare_mlflow
from regente.training.performance import channels_last

MODEL, REQUEST = "mlflow", "request.json"  # in the private folder


def pack(run: Run) -> tuple[Path, Path]:
    """A private folder with a run's model in MLflow's format, and a file in it with an example request.

    The model takes samples as files hold them. It is a torch.export program: loading it needs neither pickle nor
    Regente. It is made anew each time: a folder in the run could name code of somebody else.
    """
    folder = Path(mkdtemp(prefix="regente-serve-"))
    try:
        _pack(load_run(run), folder / MODEL, folder / REQUEST)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / MODEL, folder / REQUEST


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


def start(model: Path, host: str, port: int, *, open_to_network: bool) -> NoReturn:
    """Replace this process by MLflow's model server, which deletes the model's folder at its end."""
    prepare_mlflow()
    command, env = serving_command(str(model), host, port, "regente.inference.serving_app:app")
    hosts = "*" if open_to_network else "127.0.0.1,localhost,[::1]"
    env |= {"REGENTE_SERVE_HOSTS": hosts, "REGENTE_SERVE_FOLDER": str(model.parent)}
    os.execve(command[0], command, env)
