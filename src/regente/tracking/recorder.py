"""Step 6 of a run, as the training process sees it: a journal, and a process that ships it."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from regente.config.redaction import Redactor
from regente.errors import TrackingError
from regente.jobs import console
from regente.jobs.job import ARROW, Job, write_json
from regente.jobs.process_identity import process_identity
from regente.jobs.runs import shown
from regente.tracking.journal import Journal, read
from regente.tracking.shipment import STATE, read_state
from regente.tracking.store import unreachable

LAST_WAIT = 120.0  # seconds to wait at the end for the store to take the rest; while it is away, AWAY_WAIT
AWAY_WAIT = 3.0


@dataclass(frozen=True)
class Recorded:
    """Where the run is in MLflow; without a run id it is not yet, for the reason given."""

    run_id: str | None
    experiment_id: str | None = None
    reason: str = ""
    refused: bool = False
    server: str = ""  # where there is one


def show(out: Console, job: Job, recorded: Recorded, *, ended_well: bool) -> None:
    """Where the run is in MLflow; after a failure also where the job is."""
    if not ended_well:
        console.row(out, "job", shown(job.path))
    if recorded.run_id:
        look = f"at {recorded.server}" if recorded.server else "in MLflow; to look at it: regente ui"
        console.row(out, "run", f"{recorded.run_id} {look}")
    if recorded.reason:
        console.row(out, "recording", recorded.reason)


class Recorder:
    """The journal of a job, and the shipper that follows it; both are rank 0's alone."""

    def __init__(
        self, job: Job, config: dict[str, Any], rank: int, redact: Redactor, kind: str = "job"
    ) -> None:
        self.job, self.kind = job, kind
        self.journal = Journal(job.journal if rank == 0 else Path(os.devnull))
        self.trouble = ""  # why the store does not answer, once that is known
        tracking = config["tracking"]
        self.attempt = attempts(job)  # how often it has been started before
        self.shipper: subprocess.Popen[bytes] | None = None
        if rank > 0:
            return
        me = process_identity(os.getpid())
        mine = {f"regente.{key}": str(value) for key, value in asdict(me).items()}
        if self.attempt:
            self._resume(self.attempt, mine)
        else:
            self.journal.write(
                "start",
                experiment=tracking["experiment"] or job.experiment,
                name=redact.text(tracking["run_name"] or run_name(job)),
                params=redact.tree(parameters(config, job.choices)) if kind == "job" else {},
                tags=self._tags(redact) | origin(config.get("init_from")) | mine,
            )
        if tracking["uri"] is None:
            return
        write_json(job.path / "process_identity.json", asdict(me))
        if (job.path / STATE).is_file():  # of its attempt before, which the store may have refused
            write_json(job.path / STATE, {**read_state(job.path), "refused": ""})
        self.uri, self.shown_uri = tracking["uri"], redact.text(tracking["uri"])
        self.shipper = start_shipper(job)
        threading.Thread(target=self._probe, daemon=True).start()

    def _resume(self, number: int, tags: dict[str, str]) -> None:
        """Open the run again; what has been changed for it is recorded beside the old values."""
        changes = self.job.resumes.get(str(number), {})
        params = {f"resume.{number}/{key}": text.rpartition(ARROW)[2] for key, text in changes.items()}
        self.journal.write(
            "resume", number=number, tags={**tags, "regente.resumes": str(number)}, params=params
        )

    def _tags(self, redact: Redactor) -> dict[str, str]:
        return {
            "regente.kind": self.kind,
            "regente.job": str(self.job.path),
            "regente.experiment": self.job.experiment,
            "regente.swept": ", ".join(self.job.swept),
            "regente.overrides": redact.text(" ".join(self.job.overrides)),
            "mlflow.source.name": redact.text(" ".join(self.job.command)),
            "mlflow.source.type": "LOCAL",
            **({"regente.rerun_of": self.job.rerun_of} if self.job.rerun_of else {}),
        }

    def _probe(self) -> None:
        self.trouble = unreachable(self.uri)

    def trouble_line(self) -> str:
        """What to say of a store that does not answer."""
        return (
            f"tracking.uri={self.shown_uri} does not answer ({self.trouble}); training on, the journal keeps everything: "
            "regente sync ships it"
        )

    def require_store(self) -> None:
        """Raise TrackingError if the store is known to refuse the run for good."""
        if self.shipper is not None and (refused := read_state(self.job.path)["refused"]):
            raise TrackingError(refused)

    def finish(self, status: str) -> Recorded:
        """End the run and wait until all of it is in the store; not for long if the store is away."""
        self.journal.write("end", status=status)
        self.journal.close()
        if self.journal.trouble:  # a line is missing, the last one too, maybe
            what = (
                f"not all of it: {self.job.journal} could not be written ({self.journal.trouble}); make room"
            )
            return Recorded(read_state(self.job.path).get("run_id"), reason=what, refused=True)
        if self.shipper is None:
            return Recorded(None)
        server = self.shown_uri if self.uri.startswith("http") else ""
        begun = time.monotonic()
        while (ended := self._ended(time.monotonic() - begun)) is None:
            time.sleep(0.02)
        state = read_state(self.job.path)
        return replace(
            ended, run_id=state.get("run_id"), experiment_id=state.get("experiment_id"), server=server
        )

    def _ended(self, waited: float) -> Recorded | None:
        """How the recording ended, once it has or has been waited for long enough."""
        assert self.shipper is not None
        gone, state = self.shipper.poll() is not None, read_state(self.job.path)
        if state["ended"] and state["offset"] >= self.job.journal.stat().st_size:  # not of an earlier attempt
            return Recorded(None)
        if state["refused"]:
            return Recorded(None, reason=state["refused"], refused=True)
        if gone and not state["trouble"]:
            return Recorded(
                None, reason=f"the shipper died, see {self.job.path}/shipper.log; regente sync ships the rest"
            )
        if gone or waited > LAST_WAIT or (state["trouble"] and waited > AWAY_WAIT):
            why = state["trouble"] or "the store is slow"
            return Recorded(None, reason=f"not all of it yet ({why}); the journal keeps it: regente sync")
        return None


def start_shipper(job: Job) -> "subprocess.Popen[bytes]":
    """The process that follows a job's journal; in a session of its own: Ctrl-C is for the training, it stays."""
    command = [sys.executable, "-m", "regente.tracking.shipper", str(job.path)]
    with (job.path / "shipper.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def origin(init_from: str | None) -> dict[str, str]:
    """The tags that link a run to the weights that it begins with, and to the run they are of."""
    if not init_from:
        return {}
    tags = {"regente.init_from": init_from}
    if run_id := read_state(Path(init_from).parent.parent).get("run_id"):
        tags["regente.forked_from"] = run_id
    return tags


def attempts(job: Job) -> int:
    """How often a job has been started so far."""
    return sum(line["kind"] in ("start", "resume") for line in read(job.journal, 0)[0])


def parameters(config: dict[str, Any], choices: dict[str, str]) -> dict[str, str]:
    """The config's leaves by dotted name, and the option chosen in each group; values as YAML writes them."""
    leaves: dict[str, str] = dict(choices)

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                if not str(key).startswith("_"):
                    walk(value, f"{path}.{key}" if path else str(key))
        else:
            leaves[path] = node if isinstance(node, str) else json.dumps(node)

    walk({key: value for key, value in config.items() if key != "tracking"}, "")
    return leaves


def run_name(job: Job) -> str:
    """What the run differs in, by the last word of each key: `lr=0.003 model=lstm`; else the experiment's name.

    A job of a sweep differs from the others in the swept keys alone.
    """
    parts = [override.lstrip("+~").partition("=") for override in job.overrides]
    words = [
        f"{key.rpartition('.')[2]}={value}"
        for key, _, value in parts
        if key.split(".")[0] not in ("hydra", "tracking") and not key.startswith("hydra/")
        if job.path.name.startswith("sweep-") or not job.swept or key in job.swept
    ]
    return " ".join(words) or job.experiment
