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
from regente.tracking.mlflow_internals import save_example, write_environment

if TYPE_CHECKING:
    from mlflow.models import Model

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
    job, best = open_job(path), read_result(path).get("best_checkpoint")
    if best is None:
        return 1
    export_program(job, Path(best), own=True)
    return 0


def log_program(experiment_id: str, run_id: str, job: Job, uri: str) -> str:
    """Log the program that was exported; returns why there is none."""
    folder = job.path / EXPORTED
    if (folder / FAILURE).is_file():
        return (folder / FAILURE).read_text(encoding="utf-8")
    import mlflow
    from mlflow.models import Model

    def save_model(path: str, mlflow_model: "Model", **_: Any) -> None:
        _write(Path(path), mlflow_model, folder, np.load(job.path / EXAMPLE))

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiment_id)
    Model.log(
        artifact_path=None,
        name="model",
        flavor=SimpleNamespace(save_model=save_model, __name__="mlflow.pytorch"),
        run_id=run_id,
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
