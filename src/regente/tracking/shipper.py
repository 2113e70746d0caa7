"""The process that carries a job's journal into MLflow: `python -m regente.tracking.shipper JOB_DIR PID`.

It is a process of its own so that training pays neither for MLflow's import (2 s of CPU) nor for its
database, and so that a run whose process was killed still gets its end.
"""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from regente.errors import TrackingError
from regente.job import Job, open_job, write_json
from regente.tracking.journal import read
from regente.tracking.owner import BEAT, Owner
from regente.tracking.provenance import Usage
from regente.tracking.store import absolute_uri, named, open_store, unreachable

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STATE = "recorded.json"  # what of the journal is in MLflow: see State
POLL = 0.2  # seconds between looks at the journal
PATIENCE = 20.0  # seconds to go on trying after the job has ended and the store is away
LOCK_WAIT = 60.0  # seconds to wait for the shipper of the run's life before
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
        from regente.tracking import contents

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

        from regente.tracking import contents

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
        while (sweep / "owner.json").is_file() and time.monotonic() < end:
            if run_id := read_state(sweep).get("run_id"):
                return {"mlflow.parentRunId": run_id}
            time.sleep(POLL)
        return {}

    def _view(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import contents

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
        from regente.tracking import contents

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
        from regente.tracking import contents

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


def follow(shipment: Shipment, owner: Owner) -> None:
    """Ship until the journal ends, or until its writer is gone; go on trying while the store is away."""
    beats, due, pause = 0, time.monotonic() + BEAT, POLL
    trying_since: float | None = None  # since when the job has ended and the store is away
    usage = Usage(owner.pid)
    while not shipment.state["ended"]:
        alive = owner.alive() is not False  # asked first: what it wrote before it died is shipped below
        try:
            if time.monotonic() > due:
                beats, due = beats + 1, time.monotonic() + BEAT
                shipment.beat(beats, usage.sample())
            if not shipment.ship() and not alive:
                shipment.end_as_killed()
            pause, trying_since = POLL, None
        except Exception as error:
            if isinstance(error, TrackingError):
                return shipment.note(refused=str(error))
            away = unreachable(shipment.uri)
            words = str(error).splitlines() or [""]
            shipment.note(
                trouble=f"no answer: {away}" if away else f"{type(error).__name__}: {words[0][:200]}"
            )
            if not alive or journal_ended(shipment.job.journal):
                trying_since = trying_since or time.monotonic()
                if time.monotonic() - trying_since > PATIENCE:
                    return None
            pause = min(2 * pause, 5.0)
        if not shipment.state["ended"]:
            time.sleep(pause)
    return None


def journal_ended(path: Path) -> bool:
    """Whether the last line of a journal is its end."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        return b'"kind":"end"' in file.read()
    return False


def step_aside() -> None:
    """Leave the cores to the training, this one or the next: its threads wait for each other, so that a neighbour with
    equal rights to one core slows it three times, and forty if it never rests.

    Linux counts niceness within a session alone, and sessions against each other (sched_autogroup): this is one of its own.
    """
    os.nice(19)
    with suppress(OSError):  # not Linux, or without it
        Path("/proc/self/autogroup").write_text("19")


def main(path: Path) -> None:
    """Follow a job's journal; then, or while it trains, put right what dead runs left behind."""
    from regente.resolving import resolve
    from regente.tracking.contents import keep_provenance
    from regente.tracking.sync import sync_others

    step_aside()
    job = open_job(path)
    uri = resolve(job.config)["tracking"]["uri"]
    keep_provenance(job)  # now, whenever the store is there to take it
    owner = Owner(**json.loads((path / "owner.json").read_text()))
    with suppress(Timeout), lock_of(path, LOCK_WAIT):
        shipment = Shipment(job, uri)
        if shipment.state["ended"] and not journal_ended(
            job.journal
        ):  # as killed, while the run was going on again
            shipment.reopen()
        follow(shipment, owner)
        try:
            shipment.complete()
        except Exception:  # the run itself is in the store; shipper.log says what is missing and why
            traceback.print_exc()
    with suppress(Exception):
        sync_others(Path(job.project), uri)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
