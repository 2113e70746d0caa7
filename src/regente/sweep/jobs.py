"""The jobs of a sweep, one after the other; which ones there are is Hydra's sweeper to say."""

import json
import time
from pathlib import Path
from typing import Any

import click
from hydra.core.hydra_config import HydraConfig

from regente.check import check
from regente.compose import Composed, resolve, swept_keys
from regente.errors import ConfigError, Stopped
from regente.facts import fill
from regente.job import Job
from regente.launch import launch
from regente.redact import Redactor, env_references, secret_values
from regente.request import freeze_job
from regente.tracking.recording import Recorded, Recording


class Jobs:
    """Hydra's task function, the sweep's own run in MLflow, and the table at the end."""

    def __init__(self, experiment: str, overrides: list[str]) -> None:
        self.experiment, self.overrides = experiment, overrides
        self.rows: list[tuple[str, int, Any]] = []
        self.job: Job | None = None
        self.recording: Recording | None = None
        self.monitor: dict[str, str] = {}
        self.told: set[str] = set()  # problems of several jobs are said once

    def run(self, node: Any) -> float | None:
        """Check, freeze and run one job as a process of its own; its monitored metric, or nothing if it failed."""
        settings: Any = HydraConfig.get()
        overrides = [override.removeprefix("++") for override in settings.overrides.task]
        composed = Composed(self.experiment, overrides, node, settings)
        fill(node)
        config = resolve(node)
        if problems := check(config):
            for line in dict.fromkeys(map(str, problems)):
                if line not in self.told:
                    click.echo(line, err=True)
            self.told |= set(map(str, problems))
            self.rows.append((" ".join(overrides), ConfigError.exit_code, None))
            return None
        if self.job is None:
            self._start(composed, config)
        assert self.job is not None
        job = freeze_job(composed, self.job.path, swept=self.job.swept)
        try:
            code = launch(job, config, alone=False)
        except Stopped as error:
            self.rows.append((" ".join(overrides), error.exit_code, None))
            raise
        metrics = json.loads((job.path / "result.json").read_text())["metrics"] if code == 0 else {}
        value = metrics.get(config["monitor"]["metric"])
        self.rows.append((" ".join(overrides), code, value))
        return value

    def _start(self, first: Composed, config: dict[str, Any]) -> None:
        """The sweep is a job directory too, which holds those of its jobs: its journal becomes the parent run."""
        whole = Composed(first.experiment, self.overrides, first.node, first.hydra)
        name = time.strftime("sweep-%Y%m%d-%H%M%S", time.gmtime())
        swept = swept_keys(self.overrides, first.hydra.sweeper.get("params"))
        self.job = freeze_job(whole, Path("runs") / self.experiment, name, swept)
        self.monitor = config["monitor"]
        redact = Redactor(secret_values(config), env_references(self.job.config))
        self.recording = Recording(self.job, config, 0, redact, kind="sweep")

    def close(self, status: str | None = None) -> int:
        """Print the table; 1 if a job failed, 2 if none could start. `status`: of a sweep that was stopped, KILLED."""
        failed = sum(1 for _, code, _ in self.rows if code)
        if self.job is None:
            return ConfigError.exit_code
        recorded = self._finish(failed, status)
        stopped = ", then stopped" if status else ""
        click.secho(f"{len(self.rows) - failed} of {len(self.rows)} jobs done{stopped}", bold=True)
        for number, (overrides, code, value) in enumerate(self.rows):
            outcome = (
                f"failed with exit code {code}" if code else f"{value:.4f}" if value is not None else "done"
            )
            click.echo(f"  #{number}  {outcome}  {overrides}")
        if recorded.run_id:
            click.echo(f"sweep {recorded.run_id} in MLflow; the comparison: regente ui")
        return 1 if failed else 0

    def _finish(self, failed: int, status: str | None) -> Recorded:
        assert self.recording is not None
        journal, metric = self.recording.journal, self.monitor["metric"]
        values = [value for _, _, value in self.rows if value is not None]
        counts = {"sweep/jobs": len(self.rows), "sweep/failed": failed}
        if values:
            best = max(values) if self.monitor["mode"] == "max" else min(values)
            counts[f"best/{metric}"] = best
            winner = next(overrides for overrides, _, value in self.rows if value == best)
            journal.write("tags", values={"regente.best": winner})
        journal.write("metrics", step=0, values=counts)
        journal.write("view", monitor=self.monitor)
        return self.recording.finish(status or ("FAILED" if failed else "FINISHED"))
