"""Job directories as runs leave them, without a training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from regente.jobs.job import freeze, write_json

MONITOR = {"metric": "val/acc", "mode": "max"}


def write_run(
    folder: Path,
    seed: int | None = 0,
    value: float | None = None,
    *,
    name: str | None = None,
    metrics: Mapping[str, float] | None = None,
    choices: Mapping[str, str] | None = None,
    swept: list[str] | None = None,
    pruned: bool = False,
    monitor: Mapping[str, str] = MONITOR,
    **settings: Any,
) -> Path:
    """A job of a config with these settings (`optimizer={"lr": 0.1}`); finished if it has a value."""
    config = {
        "seed": seed,
        "monitor": dict(monitor),
        "data": {"seed": "${seed}", "split_seed": 0},
        **settings,
    }
    job = freeze(
        yaml.safe_dump(config, sort_keys=False), folder, name,
        experiment=folder.name if not folder.name.startswith("sweep-") else folder.parent.name,
        overrides=[f"seed={seed}"], command=["regente", "train", folder.name],
        choices={"data": "digits", "model": "mlp", **(choices or {})}, swept=swept or [],
    )  # fmt: skip
    if value is not None:
        found = {monitor["metric"]: value, **(metrics or {})}
        write_json(
            job.path / "result.json",
            {"best_epoch": 0, "best_checkpoint": None, "pruned": pruned, "epochs": 1, "metrics": found,
             "monitor": dict(monitor), "seconds": 1.5, "peak_megabytes": 1.0, "samples_per_second": 10.0},
        )  # fmt: skip
    return job.path


def write_sweep(folder: Path, jobs: Mapping[str, list[str]]) -> Path:
    """The directory of a sweep with its queue."""
    freeze(
        "seed: 0\n",
        folder.parent,
        folder.name,
        experiment=folder.parent.name,
        overrides=[],
        command=[],
        choices={},
    )
    (folder / "queue.json").write_text(json.dumps({"jobs": jobs}))
    return folder
