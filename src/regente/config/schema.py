"""The keys at the root of a config, and those of the parts that are no class."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Monitor:
    """What "best" means: the metric's logged name, and `min` or `max`."""

    metric: str = MISSING
    mode: str = MISSING


@dataclass
class Tracking:
    """Where MLflow records (`uri` null: nowhere), and which weights and model go there."""

    uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    checkpoints: str = "best"
    log_model: str = "best"
    create: bool = False
    tags: Any = None  # a mapping, or a list of words
    notes: str | None = None


@dataclass
class Sweep:
    """Settings of a sweep as a whole; its jobs do not have them."""

    max_jobs: int = 1000  # a larger sweep is refused
    max_minutes: float | None = None  # after which no further job is started
    zip: Any = None  # keys whose values are paired, or lists of such keys
    trials_file: str | None = None  # a CSV file with a row for each job


@dataclass
class Root:
    """The keys at the root of every config; each part's own arguments are in its class's signature."""

    seed: int | None = MISSING
    init_from: str | None = None
    monitor: Monitor = field(default_factory=Monitor)
    data: Any = MISSING
    model: Any = MISSING
    task: Any = MISSING
    loss: Any = None
    metrics: Any = None
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    loggers: Any = field(default_factory=dict)  # of Lightning, beside MLflow
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)


ROOT_KEYS = tuple(key for key in Root.__dataclass_fields__ if key != "sweep")  # of a job
