"""What came of a job: `result.json` in its directory."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """The outcome of a training that ended well; its fields are those of the file."""

    best_epoch: int | None  # from 0; None where no weights were kept
    best_checkpoint: str | None  # path
    pruned: bool
    epochs: int
    metrics: dict[str, float]  # val/... and test/... of the best weights
    monitor: dict[str, str]  # metric, mode
    seconds: float
    peak_megabytes: float
    samples_per_second: float  # in training, of all ranks
