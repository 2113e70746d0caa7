"""The trained model as an MLflow LoggedModel."""

import os
from pathlib import Path

from regente.jobs.job import EXAMPLE, Job


def log_model(experiment_id: str, run_id: str, job: Job, checkpoint: Path, uri: str, *, own: bool) -> None:
    """Log the weights of a checkpoint as a torch.export program (pt2), with signature and input example.

    `mlflow.pyfunc.load_model("models:/...")` loads it without Regente and without pickle. `own`: the job itself asks for
    it, and its classes are trusted.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    import mlflow
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import Model, infer_signature

    from regente.models.weights import load_model

    model = load_model(job, checkpoint, own=own)
    example = np.load(
        job.path / EXAMPLE
    )  # two samples: torch.export treats a batch size of one as a constant
    with torch.no_grad():
        logits = model(torch.from_numpy(example)).numpy()
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiment_id)
    Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.pytorch,
        run_id=run_id,
        pytorch_model=model,
        input_example=example,
        signature=infer_signature(example, logits),
        serialization_format="pt2",
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", "mlflow", "numpy"],
    )
