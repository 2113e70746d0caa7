"""The lines of a journal on their way into an MLflow run, and how far they are."""

import json
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from regente.config.tracking_uri import absolute_uri
from regente.jobs.job import Job, write_json
from regente.tracking.journal import read
from regente.tracking.store import named, open_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STATE = "recorded.json"  # what of the journal is in MLflow: see State
POLL = 0.2  # seconds between looks at the journal
PATIENCE = 20.0  # seconds to go on trying after the job has ended and the store is away
LIMIT = 6000  # characters of a parameter that MLflow keeps

State = dict[str, Any]
"""run_id, experiment_id, offset (bytes shipped), time (of the last line shipped), ended, complete, trouble, refused."""


class Shipment:
    """The lines of one journal on their way into one MLflow run; `own`: the job itself asked for it."""

    def __init__(self, job: Job, uri: str, *, own: bool = True) -> None:
        self.job, self.uri, self.own = job, absolute_uri(uri, Path(job.project)), own
        self.state = read_state(job.path)
        self.client: MlflowClient | None = None

    def ship(self) -> bool:
        """Send what is new; whether there was anything."""
        lines, offset = read(self.job.journal, self.state["offset"])
        if not lines:
            return False
        for kind, group in groupby(lines, key=lambda line: line["kind"]):
            getattr(self, f"_{kind}")(list(group))
        self.note(offset=offset, time=lines[-1]["time"], trouble="")
        return True

    def note(self, **changes: Any) -> None:
        """Write down how far it is."""
        self.state |= changes
        write_json(self.job.path / STATE, self.state)

    def end_as_killed(self) -> None:
        """Close the run of a process that died without a word, at the time of its last one."""
        self._end([{"status": "KILLED", "time": self.state.get("time") or int(time.time() * 1000)}])
        self.note(trouble="")

    def complete(self) -> None:
        """Add figures and model to a run that is otherwise all in the store."""
        from regente.tracking import run_artifacts as contents

        if self.state["ended"] and not self.state.get("complete") and "run_id" in self.state:
            contents.log_rest(self._open(), self.state["run_id"], self.job, own=self.own)
            self.note(complete=True)

    def beat(self, number: int, usage: dict[str, float]) -> None:
        """A sign of life, for other hosts (a counter, since their clocks may differ), and the job's own load."""
        from mlflow.entities import Metric, RunTag

        if "run_id" in self.state:
            now = int(time.time() * 1000)
            metrics = [Metric(key, value, now, number) for key, value in usage.items()]
            self._open().log_batch(self.state["run_id"], metrics, tags=[RunTag("regente.beat", str(number))])

    def _start(self, lines: list[dict[str, Any]]) -> None:
        from mlflow.entities import Param, RunTag

        from regente.tracking import run_artifacts as contents

        line = lines[0]
        self.note(experiment=line["experiment"])
        client = self._open()
        if "run_id" not in self.state:
            tags = {**line["tags"], "mlflow.runName": line["name"], **self._parent()}
            run = client.create_run(self.state["experiment_id"], start_time=line["time"], tags=tags)
            self.note(run_id=run.info.run_id)
        cut = {key: value for key, value in line["params"].items() if len(value) > LIMIT}
        params = [Param(named(key), value[:LIMIT]) for key, value in line["params"].items()]
        client.log_batch(self.state["run_id"], params=params)
        if cut:
            client.log_dict(self.state["run_id"], cut, "config/long_params.json")
            client.log_batch(self.state["run_id"], tags=[RunTag("regente.long_params", ", ".join(cut))])
        contents.log_start(client, self.state["run_id"], self.job)

    def _resume(self, lines: list[dict[str, Any]]) -> None:
        from mlflow.entities import Param, RunTag

        tags = [RunTag(key, value) for line in lines for key, value in line["tags"].items()]
        params = [Param(named(key), value[:LIMIT]) for line in lines for key, value in line["params"].items()]
        self.reopen()
        self._open().log_batch(self.state["run_id"], params=params, tags=tags)

    def reopen(self) -> None:
        """Say of a run that had ended that it goes on."""
        if "run_id" in self.state:
            self._open().update_run(self.state["run_id"], status="RUNNING")
        self.note(ended=False, complete=False)

    def _parent(self) -> dict[str, str]:
        """The tag that makes a run the child of its sweep, whose directory holds the job's; waited for a while."""
        sweep, end = self.job.path.parent, time.monotonic() + PATIENCE
        while (sweep / "process_identity.json").is_file() and time.monotonic() < end:
            if run_id := read_state(sweep).get("run_id"):
                return {"mlflow.parentRunId": run_id}
            time.sleep(POLL)
        return {}

    def _view(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import run_artifacts as contents

        self._open()
        contents.log_view(
            self._open(), self.state["experiment_id"], self.state["run_id"], lines[-1]["monitor"]
        )

    def _metrics(self, lines: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(named(key), value, line["time"], line["step"])
            for line in lines
            for key, value in line["values"].items()
        ]
        self._open().log_batch(self.state["run_id"], metrics=metrics)

    def _params(self, lines: list[dict[str, Any]]) -> None:
        from mlflow.entities import Param

        values = {key: str(value) for line in lines for key, value in line["values"].items()}
        params = [Param(named(key), value[:LIMIT]) for key, value in values.items()]
        self._open().log_batch(self.state["run_id"], params=params)

    def _tags(self, lines: list[dict[str, Any]]) -> None:
        from mlflow.entities import RunTag

        values = {key: value for line in lines for key, value in line["values"].items()}
        self._open().log_batch(
            self.state["run_id"], tags=[RunTag(key, value) for key, value in values.items()]
        )

    def _dataset(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import run_artifacts as contents

        for line in lines:
            contents.log_dataset(self._open(), self.state["run_id"], line)

    def _artifact(self, lines: list[dict[str, Any]]) -> None:
        client = self._open()
        for path, to in ((Path(line["path"]), line["to"] or None) for line in lines):
            if not path.resolve().is_relative_to(self.job.path):
                continue  # a journal that was found names what it likes
            if path.is_dir():
                client.log_artifacts(self.state["run_id"], str(path), to)
            elif path.is_file():
                client.log_artifact(self.state["run_id"], str(path), to)

    def _result(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import run_artifacts as contents

        contents.log_result(self._open(), self.state["run_id"], self.job, lines[-1])

    def _end(self, lines: list[dict[str, Any]]) -> None:
        if "run_id" in self.state:
            self._open().set_terminated(self.state["run_id"], lines[-1]["status"], lines[-1]["time"])
        self.state["ended"] = True

    def _open(self) -> "MlflowClient":
        if self.client is None:
            self.client, experiment = open_store(self.uri, Path(self.job.project), self.state["experiment"])
            self.note(experiment_id=experiment)
        return self.client


def read_state(path: Path) -> State:
    """How far a job's journal is in MLflow."""
    with suppress(OSError, ValueError):
        state: State = json.loads((path / STATE).read_text())
        return state
    return {"offset": 0, "ended": False, "trouble": "", "refused": ""}


def lock_of(path: Path, timeout: float = 0) -> FileLock:
    """Held by whoever ships a job's journal; `timeout` seconds are waited for it, then it raises Timeout."""
    return FileLock(path / ".shipper.lock", timeout=timeout)
