"""`regente serve`: the exported model behind MLflow's own model server."""

import json
import os
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import numpy as np

from regente.inference.export import FOLDER
from regente.inference.formats import prepared, samples
from regente.inference.predictor import Opened, open_run
from regente.jobs.runs import Run
from regente.tracking.store import prepare_mlflow

MODEL, REQUEST = "mlflow", "request.json"  # in FOLDER


def packed(run: Run) -> tuple[Path, Path]:
    """The folder of the run's model as MLflow packs it, made unless it is there, and an example of a request.

    The model takes samples as files hold them and has its preprocessing inside. It is torch's exported program: no
    pickle, and Regente is not needed to run it.
    """
    folder = run.job.path / FOLDER
    model, request = folder / MODEL, folder / REQUEST
    made_of = folder / f".{MODEL}.{run.checkpoint.name}"  # a run that went on has other weights
    if not (made_of.is_file() and (model / "MLmodel").is_file() and request.is_file()):
        opened = open_run(run)
        shutil.rmtree(model, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        _pack(opened, model, request)
        made_of.touch()
    return model, request


def _pack(opened: Opened, model: Path, request: Path) -> None:
    prepare_mlflow()
    import mlflow.pytorch
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    seen = samples(opened, "val", 2)
    shape = (-1, *seen.x.shape[1:])
    answers = prepared(opened)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            answers,
            str(model),
            signature=ModelSignature(
                Schema([TensorSpec(seen.x.numpy().dtype, shape)]),
                Schema([TensorSpec(np.dtype("float32"), (-1, *seen.right.shape[1:]))]),
            ),
            input_example=seen.x.numpy(),
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", "mlflow", "numpy"],
            metadata={"classes": opened.names} if opened.names else None,
        )
    request.write_text(json.dumps({"inputs": seen.x.tolist()}), encoding="utf-8")


def start(model: Path, host: str, port: int) -> NoReturn:
    """Become MLflow's model server."""
    prepare_mlflow()
    from mlflow.pyfunc.scoring_server import get_cmd

    # without `mlflow models serve`, which looks for uvicorn on the PATH and answers Ctrl-C with a traceback
    command, env = get_cmd(str(model), port=port, host=host, nworkers=1)  # type: ignore[arg-type]
    # its lifespan has nothing to do, and would answer Ctrl-C with a traceback
    os.execve(sys.executable, [sys.executable, "-m", *shlex.split(command), "--lifespan", "off"], env)
