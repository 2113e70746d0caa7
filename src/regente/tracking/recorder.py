"""Stage 6 of a run, in the training process: it writes the journal and starts the process that ships it to MLflow."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from regente.config.redaction import Redactor
from regente.config.root_keys import RECORDED
from regente.errors import TrackingError, first_of
from regente.jobs import console
from regente.jobs.job import ARROW, PROCESS, Job, write_json
from regente.jobs.process_identity import process_identity
from regente.jobs.runs import shown
from regente.jobs.trust import handed_over
from regente.tracking.journal import Journal, read
from regente.tracking.mlflow_run import NORMAL_PRIORITY
from regente.tracking.run_artifacts import keep_provenance
from regente.tracking.shipping_state import STATE, State, read_state
from regente.tracking.store import named, unreachable
from regente.tracking.user_calls import UserCalls

FINAL_WAIT = 120.0  # seconds to wait at the end while nothing more reaches the store
SWEEP = "REGENTE_SWEEP"  # in the environment of a sweep's jobs: the directory of the sweep that records them
STARVING = 1.0  # seconds that the shipper has to wait for a core, at the end, until another one takes over
UNREACHABLE_WAIT = 3.0  # seconds to wait at the end for a store that does not answer


@dataclass(frozen=True)
class RecordingResult:
    """Where the run is in MLflow; `reason` says why it is not, or not completely, there."""

    run_id: str | None
    experiment_id: str | None = None
    reason: str = ""
    refused: bool = False
    server: str = ""  # address of the MLflow server; empty for a database file
    seconds: float = 0.0  # that the command waited for the store at the end
    elsewhere: str = ""  # another store, to which the user's code has logged by itself


def show(out: Console, job: Job, recorded: RecordingResult, *, ended_well: bool) -> None:
    """Print where the run is in MLflow; after a failure also the job directory."""
    if not ended_well:
        console.row(out, "job", shown(job.path))
    if recorded.run_id:
        where = f"at {recorded.server}" if recorded.server else "in MLflow; regente ui opens it"
        took = f" (recording took {recorded.seconds:.1f} s at the end)" if recorded.seconds > 1 else ""
        console.row(out, "run", f"{recorded.run_id} {where}{took}")
    if recorded.reason:
        console.row(out, "tracking", recorded.reason)
    if recorded.elsewhere:
        what = (
            f"your code calls mlflow.set_tracking_uri: what it logs by mlflow.* goes to {recorded.elsewhere}"
        )
        console.row(out, "tracking", f"{what}, not to this run")


class Recorder:
    """Records a job: its journal, and the process that ships the journal to MLflow. Only rank 0 records.

    `start()` begins the recording and `finish()` ends it. The constructor touches no file and starts nothing.
    """

    journal: Journal  # from start() on
    calls: UserCalls | None = None
    taken_over = False  # whether a second process ships, in place of one that starved or was killed
    low_priority = True  # of the shipper, as long as the training runs
    attempt = 0  # how often the job was started before

    def __init__(
        self, job: Job, config: dict[str, Any], rank: int, redact: Redactor, kind: str = "job"
    ) -> None:
        self.job, self.config, self.rank, self.redact, self.kind = job, config, rank, redact, kind
        self.uri: str | None = config["tracking"]["uri"]
        self.by_sweep = os.environ.get(SWEEP) == str(job.path.parent)  # whose shipper ships this job too
        self.shown_uri = redact.text(self.uri or "")
        self.problem = ""  # why the store does not answer
        self.shipper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Write the first line; start the shipper, and a thread that tests whether the store answers."""
        self.attempt = attempts(self.job)
        self.journal = Journal(self.job.journal if self.rank == 0 else Path(os.devnull))
        self._start()
        # after the shipper has the address of the store; a sweep composes its jobs by it
        if self.kind != "sweep":
            self.calls = UserCalls(self)

    def _start(self) -> None:
        if self.rank > 0:
            return
        process = asdict(process_identity(os.getpid()))
        write_json(self.job.path / PROCESS, process)
        self._write_first_line({f"regente.{key}": str(value) for key, value in process.items()})
        if self.uri is None:
            return
        if self.by_sweep:
            # not by the sweep's shipper, which sees other GPUs or runs on another machine
            with suppress(OSError):  # a full disk does not end a training
                keep_provenance(self.job)
        state = read_state(self.job.path)
        if state["refused"] or not (self.job.path / STATE).is_file():  # by an earlier attempt
            write_json(self.job.path / STATE, {**state, "refused": ""})
        if self.by_sweep:
            return
        self.shipper = start_shipper(self.job, low_priority=self.low_priority)
        threading.Thread(target=self._probe, daemon=True).start()

    def _write_first_line(self, process: dict[str, str]) -> None:
        job, text, number = self.job, self.redact.text, str(self.attempt)
        if self.attempt:  # a changed setting is recorded beside its old value
            params = {
                f"resume.{number}/{key}": change.rpartition(ARROW)[2]
                for key, change in job.resumes.get(number, {}).items()
            }
            tags = {**process, "regente.resumes": number}
            self.journal.write("resume", number=self.attempt, tags=tags, params=params)
            return
        tags = {
            "regente.kind": self.kind,
            "regente.job": str(job.path),
            "regente.experiment": job.experiment,
            "regente.swept": ", ".join(job.swept),
            "regente.overrides": text(" ".join(job.overrides)),
            "mlflow.source.name": text(" ".join(job.command)),
            "mlflow.source.type": "LOCAL",
            **({"regente.rerun_of": job.rerun_of} if job.rerun_of else {}),
        }
        tracking = self.config["tracking"]
        self.journal.write(
            "start",
            experiment=tracking["experiment"] or job.experiment,
            name=text(tracking["run_name"] or run_name(job)),
            params=self.redact.tree(parameters(self.config, job.choices)) if self.kind == "job" else {},
            tags=self._own_tags() | tags | origin(self.config.get("init_from")) | process,
        )

    def _own_tags(self) -> dict[str, str]:
        """`tracking.tags` and `tracking.notes` as MLflow keeps them."""
        tags, notes = self.config["tracking"].get("tags"), self.config["tracking"].get("notes")
        own = {**(tags if isinstance(tags, dict) else {"tags": tags}), "notes": notes}
        texts = {
            key: ", ".join(map(str, each)) if isinstance(each, list) else each for key, each in own.items()
        }
        return {named(str(key)): self.redact.text(str(text)) for key, text in texts.items() if text}

    def _probe(self) -> None:
        self.problem = unreachable(self.uri or "")

    def problem_note(self) -> str:
        """The note about a store that does not answer."""
        return (
            f"tracking.uri={self.shown_uri} does not answer ({self.problem}); training goes on and the journal "
            "keeps everything; regente sync ships it later"
        )

    def require_store(self) -> None:
        """Raise TrackingError if the store has refused the run for good."""
        if self.uri and (refused := read_state(self.job.path)["refused"]):
            raise TrackingError(refused)

    def finish(self, status: str) -> RecordingResult:
        """End the run and wait until the store has all of it; the wait is short if the store does not answer."""
        elsewhere = self.redact.text(self.calls.end()) if self.calls else ""
        self.journal.write("end", status=status)
        self.journal.close()
        return replace(self._wait(), elsewhere=elsewhere)

    def _wait(self) -> RecordingResult:
        if self.journal.problem:
            what = f"incomplete: {self.job.journal} could not be written ({self.journal.problem}); free some disk space"
            return RecordingResult(read_state(self.job.path).get("run_id"), reason=what, refused=True)
        if self.shipper is None:
            state = read_state(self.job.path)
            return RecordingResult(
                state.get("run_id"), reason=state["refused"], refused=bool(state["refused"])
            )
        begun = changed = time.monotonic()
        delay, before = waited_for_core(self.shipper.pid) if self.low_priority else None, None
        while True:
            # a long upload is no reason: it waits for the network, not for a core
            most = max(STARVING, (time.monotonic() - begun) / 2)
            starves = delay is not None and (waited_for_core(self.shipper.pid) or 0.0) > delay + most
            if not self.taken_over and (starves or (self.shipper.poll() or 0) < 0):
                self._take_over()
            if (state := read_state(self.job.path)) != before:
                changed, before = time.monotonic(), state
            if (result := self._result(state, time.monotonic() - changed)) is not None:
                break
            time.sleep(0.02)
        # it may still ship what other processes have left
        end = time.monotonic() + FINAL_WAIT
        while not result.reason and self.shipper.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        state = read_state(self.job.path)
        server = self.shown_uri if self.shown_uri.startswith("http") else ""
        run_id, experiment_id = state.get("run_id"), state.get("experiment_id")
        waited = time.monotonic() - begun
        return replace(result, run_id=run_id, experiment_id=experiment_id, server=server, seconds=waited)

    def _take_over(self) -> None:
        """Ship at normal priority: the training needs the cores no longer, and other work on them never lets up."""
        assert self.shipper is not None
        self.taken_over = True
        self.shipper.kill()
        self.shipper.wait()
        self.shipper = start_shipper(self.job, low_priority=False)

    def _result(self, state: State, waited: float) -> RecordingResult | None:
        """The result of the recording once it is known, or once `waited` seconds without a change are enough."""
        assert self.shipper is not None
        stopped = self.shipper.poll() is not None
        # the offset: an earlier attempt may have ended too
        if (
            state["ended"]
            and state["offset"] >= self.job.journal.stat().st_size
            and (stopped or state.get("complete"))
        ):
            lost = first_of(state.get("lost", []), separator="; ")
            return RecordingResult(None, reason=f"the store refused {lost}" if lost else "")
        if state["refused"]:
            return RecordingResult(None, reason=state["refused"], refused=True)
        if stopped and not state["problem"]:
            what = f"the shipper died, see {self.job.path}/shipper.log; regente sync ships the rest"
            return RecordingResult(None, reason=what)
        if stopped or waited > FINAL_WAIT or (state["problem"] and waited > UNREACHABLE_WAIT):
            why = state["problem"] or "the store is slow"
            what = f"incomplete ({why}); the journal keeps the rest; regente sync ships it"
            return RecordingResult(None, reason=what)
        return None


def start_shipper(job: Job, *, low_priority: bool = True) -> "subprocess.Popen[bytes]":
    """Start the process that follows a job's journal, in a session of its own so that Ctrl-C does not reach it."""
    command = [sys.executable, "-m", "regente.tracking.shipper", str(job.path)]
    command += [] if low_priority else [NORMAL_PRIORITY]
    with (job.path / "shipper.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **handed_over(job)},
            start_new_session=True,
        )


def waited_for_core(pid: int) -> float | None:
    """Seconds that a process could have run and had no core; None where the system does not count them."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return None


def origin(init_from: str | None) -> dict[str, str]:
    """The tags that link a run to its initial weights, and to the run that these are from."""
    if not init_from:
        return {}
    tags = {"regente.init_from": init_from}
    if run_id := read_state(Path(init_from).parent.parent).get("run_id"):
        tags["regente.forked_from"] = run_id
    return tags


def attempts(job: Job) -> int:
    """How often a job was started so far."""
    return sum(line["kind"] in ("start", "resume") for line in read(job.journal, 0)[0])


def parameters(config: dict[str, Any], choices: dict[str, str]) -> dict[str, str]:
    """The leaves of the config by dotted name, and the option of each group; values as YAML writes them."""
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
    """The overrides by the last word of each key, `lr=0.003 model=lstm`; without overrides the experiment's name.

    Of a job of a sweep only the swept keys.
    """
    parts = [override.lstrip("+~").partition("=") for override in job.overrides]
    words = [
        f"{key.rpartition('.')[2]}={value}"
        for key, _, value in parts
        if key.split(".")[0] not in ("hydra", "tracking", *RECORDED) and not key.startswith("hydra/")
        if job.path.name.startswith("sweep-") or not job.swept or key in job.swept
    ]
    return " ".join(words) or job.experiment
