"""The trained model as an MLflow LoggedModel."""

import os
import sys
from pathlib import Path

from regente.compose import resolve
from regente.job import Job


def log_model(experiment_id: str, run_id: str, job: Job, checkpoint: Path, uri: str) -> None:
    """Log the weights of a checkpoint as an exported program (pt2), with signature and input example.

    It loads without Regente's source and without pickle: `mlflow.pyfunc.load_model("models:/...")`.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    import mlflow
    import mlflow.pytorch
    import numpy as np
    import torch
    from hydra.utils import instantiate
    from mlflow.models import Model, infer_signature

    sys.path.append(job.project)
    config = resolve(job.config)
    model = instantiate(config["model"], _convert_="all")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict(
        {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    )
    model.eval()
    # two samples: torch.export takes a batch of one for a constant
    example = np.zeros((2, *config["data"]["input_shape"]), dtype=np.float32)
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
