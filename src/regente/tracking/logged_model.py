"""The trained model as an MLflow LoggedModel: a torch.export program (pt2), with signature and input example.

`mlflow.pyfunc.load_model("models:/...")` and `mlflow.pytorch.load_model` load it without Regente and without pickle. The
process that has trained exports it, since it has torch; the process that ships the run logs it, since it has MLflow.
"""

import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from regente.jobs.job import EXAMPLE, Job, open_job
from regente.jobs.result import read_result
from regente.jobs.runs import best_weights
from regente.tracking.mlflow_internals import save_example, write_environment

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

WEIGHTS_TAG = "regente.weights"  # of the LoggedModel: see _identity
# in the job directory until the model is logged: the program, its outputs for the example, or why there is none
EXPORTED, PROGRAM, OUTPUTS, FAILURE = "exported", "model.pt2", "outputs.npy", "failure.txt"


def export_program(job: Job, checkpoint: Path, *, own: bool) -> None:
    """Write the weights of a checkpoint as a program for any number of samples, or why that cannot be.

    `own`: the job itself asks for it, and its classes are trusted.
    """
    import torch

    from regente.models.weights import load_model

    folder = job.path / EXPORTED
    draft = job.path / f".{EXPORTED}"
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir()
    try:
        model = load_model(job, checkpoint, own=own)
        # two samples: torch.export treats a batch size of one as a constant
        example = torch.from_numpy(np.load(job.path / EXAMPLE))
        with torch.no_grad():
            np.save(draft / OUTPUTS, model(example).numpy())
        samples = {0: torch.export.Dim.AUTO}
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=(samples,)), draft / PROGRAM)
    except (
        Exception
    ) as error:  # what a model of a user's or torch.export raises; the run itself is in the store
        (draft / FAILURE).write_text(
            f"not logged: {type(error).__name__}: {str(error)[:500]}", encoding="utf-8"
        )
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def export_best(path: Path) -> int:
    """Export the best weights of the finished job of one's own in a directory; 0, or 1 where there are none."""
    job = open_job(path)
    if (best := best_weights(job, read_result(path))) is None:
        return 1
    export_program(job, best, own=True)
    return 0


def is_logged(client: "MlflowClient", run_id: str, checkpoint: Path) -> bool:
    """Whether a run has the model with the weights of a checkpoint already."""
    wanted = _identity(checkpoint)
    return any(_is_ready(model) and model.tags[WEIGHTS_TAG] == wanted for model in _models(client, run_id))


def _models(client: "MlflowClient", run_id: str) -> "list[LoggedModel]":
    """The models of a run that this file has logged, or has begun to log."""
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return [model for model in found if WEIGHTS_TAG in model.tags]


def _is_ready(model: "LoggedModel") -> bool:
    return str(model.status) == "READY"


def _identity(checkpoint: Path) -> str:
    """Name and time of a file of weights: a run that goes on may write other weights under the same name."""
    return f"{checkpoint.name} {checkpoint.stat().st_mtime_ns}"


def log_program(client: "MlflowClient", run_id: str, job: Job, checkpoint: Path) -> str:
    """Log the program that was exported of a checkpoint; returns why there is none.

    A model that a killed process has left unfinished is completed.
    """
    folder = job.path / EXPORTED
    if (folder / FAILURE).is_file():
        return (folder / FAILURE).read_text(encoding="utf-8")
    import mlflow
    from mlflow.models import Model

    run = client.get_run(run_id)
    model_id = next((each.model_id for each in _models(client, run_id) if not _is_ready(each)), None)
    if model_id:
        client.set_logged_model_tags(model_id, {WEIGHTS_TAG: _identity(checkpoint)})
    # MLflow refuses to link a model to its run twice
    linked = model_id in [each.model_id for each in (run.outputs.model_outputs if run.outputs else [])]

    def save_model(path: str, mlflow_model: "Model", **_: Any) -> None:
        mlflow_model.run_id = run_id
        _write(Path(path), mlflow_model, folder, np.load(job.path / EXAMPLE))

    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    Model.log(
        artifact_path=None,
        name="model",
        flavor=SimpleNamespace(save_model=save_model, __name__="mlflow.pytorch"),
        run_id=None if linked else run_id,
        model_id=model_id,
        tags={WEIGHTS_TAG: _identity(checkpoint)},
        validate_serving_input=False,  # it would load the model
    )
    shutil.rmtree(folder)
    return ""


def _write(path: Path, model: "Model", exported: Path, example: Any) -> None:
    """What `mlflow.pytorch.save_model(serialization_format="pt2")` writes, without torch."""
    from mlflow import pyfunc
    from mlflow.models import infer_signature

    (path / "data").mkdir(parents=True)
    shutil.copyfile(exported / PROGRAM, path / "data/model.pt2")
    save_example(model, example, path)
    model.signature = infer_signature(example, np.load(exported / OUTPUTS))
    torch = version("torch")
    model.add_flavor("pytorch", model_data="data", pytorch_version=torch, code=None)
    environment = write_environment(path, [f"torch=={torch.partition('+')[0]}", "mlflow", "numpy"])
    pyfunc.add_to_model(
        model, loader_module="mlflow.pytorch", data="data", model_config={"device": None}, **environment
    )
    model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    model.save(str(path / "MLmodel"))
