"""`regente predict` without files: the task's `predict_step` on a split of the run's own data. Imports torch and Lightning."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden

from regente.config.interpolation import resolve
from regente.errors import ConfigError, DataError, Problem
from regente.inference.metrics import loaded_parts
from regente.inference.predict import Predictions, rows_of
from regente.jobs.runs import Run, shown
from regente.jobs.trust import read_config, require_known_env
from regente.training.callbacks.run_description import input_of
from regente.training.frozen import set_environment
from regente.training.session import quiet_libraries

# the first that the data module has is used, set up for its stage
STAGES = {"predict_dataloader": "predict", "test_dataloader": "test", "val_dataloader": "validate"}


class AsGiven:
    """The batches of a loader as they are: Lightning makes a `DataLoader` anew for predictions, which fails for some."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]


def predict_split(run: Run) -> Predictions:
    """Predict with a run's task on its `predict_dataloader`, or else on its test or validation data.

    Raises:
        CheckpointError: when the run's weights are missing or damaged.
        ConfigError: when the data module has no such data.
        DataError: when nothing was predicted.
    """
    job = run.job
    require_known_env(job)
    set_environment(job.env)
    read_config(job, Path.cwd())
    with quiet_libraries():
        parts, _ = loaded_parts(job, resolve(job.config), run)
        data: Any = parts.data
        name = next((name for name in STAGES if is_overridden(name, data)), None)
        if name is None:
            what = f"{type(data).__name__} has none of {', '.join(STAGES)}; give it one, or name files"
            raise ConfigError([Problem(f"run {shown(job.path)}", what)])
        data.prepare_data()
        data.setup(STAGES[name])
        loaders: Any = getattr(data, name)()  # one, or several in a list, a mapping or both
        if not isinstance(loaders, CombinedLoader):
            loaders = CombinedLoader(loaders, "sequential")
        loaders.flattened = list(map(AsGiven, loaders.flattened))
        data.predict_dataloader = lambda: loaders
        task: Any = parts.task
        if not is_overridden("predict_step", task, LightningModule):
            task.predict_step = lambda batch, batch_idx, dataloader_idx=0: task(input_of(batch, task))
        outputs: Any = parts.trainer.predict(task, datamodule=data) or []
    predictions = Predictions()
    for batch in chain(*outputs) if len(loaders.flattened) > 1 else outputs:
        predictions.rows += rows_of(batch, len(predictions.rows))
    if not predictions.rows:
        raise DataError(f"no predictions: predict_step of {type(task).__name__} returned none for any batch")
    return predictions
