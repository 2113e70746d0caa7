"""Ships the lines of a journal into an MLflow run, and keeps count of what is shipped."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from regente.config.interpolation import resolve
from regente.config.tracking_uri import absolute_uri
from regente.errors import CheckpointError, TrackingError
from regente.jobs.found_files import is_plain
from regente.jobs.job import ARTIFACTS, QUEUE, Job, read_json, write_json
from regente.jobs.result import read_result
from regente.jobs.runs import best_of_sweep
from regente.jobs.trust import made_by_user
from regente.tracking import description
from regente.tracking.batches import batches, smaller
from regente.tracking.journal import KINDS, read
from regente.tracking.shipping_state import STATE, ending_of, has_result, read_state
from regente.tracking.store import all_runs, named, open_store, unreachable

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

CLAIM_TAG = "regente.claim"  # SHA-256 of a secret in STATE, which tells whose run it is
HEARTBEAT_TAG = "regente.heartbeat"  # a counter, since the clocks of machines may differ
NORMAL_PRIORITY = "normal"  # an argument of the shipper
POLL = 0.2  # seconds between looks at the journal
PATIENCE = 20.0  # seconds to go on trying after the job has ended and the store does not answer
LIMIT = 6000  # characters of a parameter that MLflow keeps


class Clients:
    """Clients of MLflow's stores; each store is opened once."""

    def __init__(self) -> None:
        self.opened: dict[tuple[str, str], tuple[MlflowClient, str]] = {}

    def of(self, uri: str, project: Path, experiment: str) -> "tuple[MlflowClient, str]":
        """The client of a store, and the id of the experiment: see open_store."""
        key = uri, experiment
        if key not in self.opened:
            self.opened[key] = open_store(uri, project, experiment)
        return self.opened[key]


class Shipment:
    """Ships one journal into one MLflow run; `own`: the job itself asked for it, and is trusted."""

    def __init__(self, job: Job, uri: str, *, own: bool = True, clients: Clients | None = None) -> None:
        self.job, self.uri, self.own = job, absolute_uri(uri, Path(job.project)), own
        self.state = read_state(job.path)
        self.clients = clients or Clients()
        self.client: MlflowClient | None = None

    def ship(self) -> bool:
        """Ship the new lines; whether there were any."""
        lines, offset = read(self.job.journal, self.state["offset"])
        if not lines:
            return False
        known = [line for line in lines if line["kind"] in KINDS]  # a found journal may name any method
        self._ship_all(known)
        self.note(offset=offset, time=lines[-1]["time"], problem="")
        return True

    def _ship_all(self, lines: list[dict[str, Any]]) -> None:
        for kind, group in batches(lines):
            self._ship(kind, group)

    def _ship(self, kind: str, lines: list[dict[str, Any]]) -> None:
        """Ship lines of one kind; what the store refuses is lost alone, and noted."""
        from mlflow.exceptions import MlflowException

        try:
            getattr(self, f"_{kind}")(lines)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if not (parts := list(smaller(kind, lines))):
                self._lose(f"{_content(lines[0])}: {_in_one_line(error)}")
            for each in parts:
                self._ship(*each)

    def _lose(self, what: str) -> None:
        self.note(lost=[*self.state.get("lost", []), what])

    def note(self, **changes: Any) -> None:
        """Write changes of the state to its file."""
        self.state |= changes
        write_json(self.job.path / STATE, self.state)

    def end_of_dead(self) -> None:
        """End the run of a process that died before it wrote the end; its result may be missing in the journal too."""
        status, at = ending_of(self.job.path)
        lines = [{"kind": "end", "status": status, "time": at}]
        if status == "FINISHED" and not has_result(self.job.path):
            lines.insert(0, {**read_result(self.job.path), "kind": "result", "time": at})
        self._ship_all(lines)
        self.note(problem="")

    def reopen(self) -> None:
        """Set an ended run to RUNNING: it was resumed."""
        if "run_id" in self.state:
            self._open().update_run(self.state["run_id"], status="RUNNING")
        self.note(ended=False, complete=False)

    def log_outputs(self) -> None:
        """Log the figures and the model of an ended run, once."""
        from regente.tracking import run_artifacts

        if self.state["ended"] and not self.state.get("complete") and "run_id" in self.state:
            run_artifacts.log_outputs(self._open(), self.state["run_id"], self.job, own=self.own)
            if (self.job.path / QUEUE).is_file():
                self._log_best_model()
                self._compare_jobs()
            self.note(complete=True)

    def _log_best_model(self) -> None:
        """Log the model of the best job of this sweep, once."""
        from regente.tracking import run_artifacts

        with suppress(TrackingError, CheckpointError):  # no job has finished, or kept weights
            best = best_of_sweep(self.job.path)
            of_job = Shipment(best.job, self.uri, own=made_by_user(best.job), clients=self.clients)
            policy = resolve(best.job.config, ["tracking"])["tracking"]["log_model"] if of_job.own else "none"
            if policy == "best" and "run_id" in of_job.state:
                run_artifacts.log_model(
                    of_job._open(), of_job.state["run_id"], best.job, best.checkpoint, own=True
                )

    def _compare_jobs(self) -> None:
        """Say on the page of each job of this sweep how it stands, and save the view of them all."""
        from regente.tracking.view import log_view

        client, experiment, sweep = self._open(), self.state["experiment_id"], self.state["run_id"]
        monitor = {"metric": "", "mode": ""} | read_json(self.job.path / QUEUE).get("monitor", {})
        runs = all_runs(client, experiment, f"tags.mlflow.parentRunId = '{sweep}'")
        log_view(client, experiment, sweep, monitor, runs)
        description.rank_jobs(client, runs, monitor)

    def heartbeat(self, number: int, usage: Mapping[str, float]) -> None:
        """Log a heartbeat for other machines, and the load of the job."""
        if "run_id" in self.state:
            line = {"time": int(time.time() * 1000), "step": number, "values": usage}
            self._log(metrics=_metrics([line]), tags={HEARTBEAT_TAG: str(number)})
            self.ship_files()

    def ship_files(self) -> list[str]:
        """Ship the files that the user's code has logged, if they have changed since; returns what failed, and why."""
        folder, done, failed = self.job.path / ARTIFACTS, self.state.setdefault("uploaded", {}), []
        for path in [] if folder.is_symlink() else sorted(folder.rglob("*")):
            if not path.is_file() or not path.resolve().is_relative_to(self.job.path.resolve()):
                continue  # a link to elsewhere
            name, facts = path.relative_to(folder), path.stat()
            if done.get(str(name)) != (now := [facts.st_mtime_ns, facts.st_size]):
                to = name.parent.as_posix()
                try:
                    self._open().log_artifact(self.state["run_id"], str(path), to if to != "." else None)
                    done[str(name)] = now
                except Exception as error:  # each store of artifacts has its own
                    if unreachable(self.uri):
                        raise
                    failed.append(f"{name}: {_in_one_line(error)}")
        return failed

    def _log(
        self,
        metrics: "Sequence[Metric]" = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log metrics, parameters and tags in one request."""
        from mlflow.entities import Param, RunTag

        self._open().log_batch(
            self.state["run_id"],
            metrics,
            [Param(named(key), str(value)[:LIMIT]) for key, value in (params or {}).items()],
            [RunTag(key, value) for key, value in (tags or {}).items()],
        )

    def _start(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import run_artifacts

        line = lines[0]
        self.note(experiment=line["experiment"])
        client = self._open()
        cut = {key: value for key, value in line["params"].items() if len(value) > LIMIT}
        if "run_id" not in self.state:
            # the claim is noted first: of a process that dies in between, the next one finds the run
            made = self._claimed() if "claim" in self.state else ""
            self.note(claim=self.state.get("claim") or token_hex(16))
            self.note(run_id=made or self._create(line, cut))
        run_artifacts.log_start(client, self.state["run_id"], self.job)
        if cut:
            client.log_dict(self.state["run_id"], cut, "config/long_params.json")

    def _claimed(self) -> str:
        """The id of the run that an earlier process has made for this job; empty if there is none."""
        wanted = f"tags.`{CLAIM_TAG}` = '{_claim(str(self.state['claim']))}'"
        found = self._open().search_runs([self.state["experiment_id"]], wanted, max_results=1)
        return found[0].info.run_id if found else ""

    def _create(self, line: dict[str, Any], cut: Collection[str]) -> str:
        from regente.tracking import run_artifacts

        tags = line["tags"] | run_artifacts.start_tags(self.job, own=self.own) | self._parent()
        tags |= {"mlflow.runName": line["name"], CLAIM_TAG: _claim(self.state["claim"])}
        if cut:
            tags["regente.long_params"] = ", ".join(cut)
        run = self._open().create_run(self.state["experiment_id"], start_time=line["time"], tags=tags)
        return str(run.info.run_id)

    def _parent(self) -> dict[str, str]:
        """The tag that makes a run the child of its sweep, whose directory holds the job's; waits for the sweep's run."""
        sweep, end = self.job.path.parent, time.monotonic() + PATIENCE
        while (sweep / STATE).is_file() and time.monotonic() < end:
            if run_id := read_state(sweep).get("run_id"):
                return {"mlflow.parentRunId": run_id}
            time.sleep(POLL)
        return {}

    def _resume(self, lines: list[dict[str, Any]]) -> None:
        self.reopen()
        for line in lines:
            self._log(params=line["params"], tags=line["tags"])

    def _description(self, lines: list[dict[str, Any]]) -> None:
        self._describe(lines[-1]["text"], self._open().get_run(self.state["run_id"]).data.tags)

    def _describe(self, text: str, tags: Mapping[str, str]) -> None:
        """Write the description of the run, with what stands in it already of others."""
        whole = description.merged(text, tags.get(description.TAG, ""))
        self._open().set_tag(self.state["run_id"], description.TAG, whole)

    def _values(self, lines: list[dict[str, Any]]) -> None:
        params: dict[str, Any] = {}
        tags: dict[str, str] = {}
        again = []  # parameters that have another value already, which the store refuses
        for line in lines:
            if line["kind"] == "tags":
                tags |= line["values"]
            elif line["kind"] == "params":
                new = {key: each for key, each in line["values"].items() if params.get(key, each) == each}
                params |= new
                again += [{key: each} for key, each in line["values"].items() if key not in new]
        self._log(_metrics([line for line in lines if line["kind"] == "metrics"]), params, tags)
        for values in again:
            self._ship("values", [{"kind": "params", "values": values}])

    def _dataset(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import run_artifacts

        for line in lines:
            run_artifacts.log_dataset(self._open(), self.state["run_id"], line)

    def _artifact(self, lines: list[dict[str, Any]]) -> None:
        client = self._open()
        for path, to in ((self.job.path / line["path"], line["to"] or None) for line in lines):
            if not is_plain(path, self.job.path):
                continue  # a journal of unknown origin may name any file of this machine
            if path.is_dir():
                client.log_artifacts(self.state["run_id"], str(path), to)
            else:
                client.log_artifact(self.state["run_id"], str(path), to)

    def _result(self, lines: list[dict[str, Any]]) -> None:
        from regente.tracking import run_artifacts

        run = self._open().get_run(self.state["run_id"])
        run_artifacts.log_checkpoints(self._open(), run, self.job, lines[-1])
        text = description.describe(self.job, lines[-1], run.data.tags.get("notes", ""))
        self._describe(text, run.data.tags)

    def _end(self, lines: list[dict[str, Any]]) -> None:
        if "run_id" in self.state:
            failed = self.ship_files()
            self._open().set_terminated(self.state["run_id"], lines[-1]["status"], lines[-1]["time"])
            for each in failed:
                self._lose(each)
        self.state["ended"] = True

    def _open(self) -> "MlflowClient":
        if self.client is None:
            where = self.uri, Path(self.job.project), self.state["experiment"]
            self.client, experiment = self.clients.of(*where)
            if "run_id" in self.state:
                self._require_claim(self.client)
            self.note(experiment_id=experiment)
        return self.client

    def _require_claim(self, client: "MlflowClient") -> None:
        """Raise TrackingError unless the run is this job's: a found `recorded.json` may name any other."""
        tags = client.get_run(self.state["run_id"]).data.tags
        if tags.get(CLAIM_TAG) != _claim(str(self.state.get("claim"))):
            what = "is not the run of this job; delete that file to record the job as a new run"
            raise TrackingError(f"{self.job.path}/{STATE}: {self.state['run_id']} {what}")


def _claim(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _content(line: dict[str, Any]) -> str:
    values = line.get("values") or {}
    return ", ".join(f"{key}={str(value)[:60]}" for key, value in values.items()) or str(line["kind"])


def _in_one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _metrics(lines: list[dict[str, Any]]) -> "list[Metric]":
    from mlflow.entities import Metric

    return [
        Metric(named(key), value, line["time"], line["step"])
        for line in lines
        for key, value in line["values"].items()
    ]
