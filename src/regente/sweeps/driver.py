"""The loop of a sweep: free slots get jobs, ends of jobs are written down, until there is nothing more to do."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import FrameType
from typing import Any

from regente.config.redaction import Redactor
from regente.errors import ConfigError
from regente.jobs.job import Job, open_job, read_json, write_json
from regente.sweeps.hydra_callbacks import HydraCallbacks
from regente.sweeps.plan import Plan, Policy
from regente.sweeps.probe import kinds, probe, worthwhile
from regente.sweeps.protocols import Launcher, TrialResult, TrialSource, TrialSpec
from regente.sweeps.records import Parent, frozen
from regente.sweeps.slot import last_line
from regente.sweeps.state import JobState, SweepFolder, result_fields
from regente.sweeps.table import Table
from regente.tracking.recorder import RecordingResult
from regente.training.launch import GRACE

LOOK = 0.5  # seconds between looks at time limits and signals while no job ends
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED = tuple(128 + number for number in (*SIGNALS, signal.SIGKILL))


class Driver:
    """Runs the jobs of a sweep, each once; `again`: also those that are done, `only_failed`: those that failed alone."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        table: Table,
        first: dict[str, Any],
        redact: Redactor,
        *,
        again: bool,
        only_failed: bool,
    ) -> None:
        self.plan, self.folder, self.table = plan, folder, table
        self.first, self.redact = first, redact  # `first`: the first job's config
        self.again, self.only_failed = again, only_failed
        self.known = folder.load()
        self.session: dict[str, JobState] = {}  # the jobs of this command line, in their order
        self.trials: dict[str, list[TrialSpec]] = {}  # whom to tell of a job's end
        self.jobs: dict[str, tuple[Job, float]] = {}  # running, with their start
        self.tries: dict[str, int] = {}  # in this session
        self.launcher: Launcher | None = None
        self.policy = Policy()
        self.parent: Parent | None = None
        self.monitor = first["monitor"]
        self.callbacks = HydraCallbacks(plan.base)
        self.stopped: int | None = None  # the signal
        self.asked: dict[str, float] = {}  # jobs that were told to stop, and when they are told again
        self.over_time: set[str] = set()
        self.halted = False  # a job failed, and on_failure=stop
        self.whole = folder.path / "whole.json"  # there when the sweep's own run is closed
        self.begun = time.monotonic()

    def run(self, source: TrialSource) -> None:
        """Do all that is to be done."""
        listed = None if source.adaptive else iter(self.plan.jobs)
        try:
            with self._signals():
                while True:
                    while self._room() and (item := self._next(source, listed)) is not None:
                        self._take(source, *item)
                    if not self.jobs:
                        break
                    self._wait(source)
        finally:
            if self.launcher:
                self.launcher.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT, SIGTERM or SIGHUP lets jobs save and end; the second ends them at once."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.stopped:
                self.asked = dict.fromkeys(self.asked, 0.0)
            self.stopped = self.stopped or number

        ours = (
            threading.current_thread() is threading.main_thread()
        )  # else a program's, which keeps its handlers
        before = {number: signal.signal(number, note) for number in SIGNALS if ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _room(self) -> bool:
        full = self.launcher is not None and len(self.jobs) >= self.launcher.slots
        return not (self.stopped or self.halted or self._late() or full)

    def _late(self) -> bool:
        limit = self.plan.base.sweep["max_minutes"]
        return limit is not None and time.monotonic() - self.begun > 60 * limit

    def _next(
        self, source: TrialSource, listed: Iterator[tuple[str, TrialSpec]] | None
    ) -> tuple[str, TrialSpec] | None:
        if listed is not None:
            return next(listed, None)
        while (trial := source.ask()) is not None:
            try:
                composed, _ = self.plan.composer.checked_config(trial.overrides)
                return self.plan.identities.of(composed.node), trial
            except ConfigError as error:
                state = JobState(
                    f"trial-{trial.number}",
                    self._words(trial),
                    "failed",
                    code=error.exit_code,
                    reason=str(error),
                )
                self.session[state.id] = state
                self.table.finished(state)
                source.tell(trial, TrialResult(error.exit_code))
        return None

    def _words(self, trial: TrialSpec) -> list[str]:
        """Its overrides, as they may be written down."""
        return [self.redact.text(word) for word in trial.overrides]

    def left(self, source: TrialSource) -> str:
        """How many jobs were not begun, and why, where it was not a signal."""
        if self.stopped or not (self.halted or self._late()):
            return ""
        total = len(self.plan.jobs) or source.total
        number = f"{total - len(self.session):,}" if total else "those that follow"
        if number == "0":
            return ""
        why = "hydra.launcher.on_failure=stop" if self.halted else "sweep.max_minutes were over"
        return f", {number} not begun: {why}"

    def _take(self, source: TrialSource, id_: str, trial: TrialSpec) -> None:
        """Run a job, unless it is done or runs already, or is not asked for."""
        state = self.session.get(id_) or self.known.get(id_) or JobState(id_, self._words(trial))
        self.session[id_] = state
        if id_ in self.jobs:
            self.trials[id_].append(trial)
        elif (state.state == "done" and (not self.again or id_ in self.tries)) or (id_ in self.tries):
            self.table.skipped += id_ not in self.tries
            self._tell(source, trial, state)
        elif state.state == "running":  # see settle
            host = (state.owner or {}).get("host", "another machine")
            self.table.note(f"still runs, as far as {host} can be seen from here: {state.directory}")
        elif self.only_failed and state.state != "failed":
            return
        else:
            self.trials[id_] = [trial]
            self._start(id_, trial)

    def _start(self, id_: str, trial: TrialSpec) -> None:
        composed, config = self.plan.composer.checked_config(trial.overrides)
        self._prepare()
        assert self.launcher is not None
        state = self.session[id_] = self.folder.save(self.session[id_].started())
        job = frozen(self.folder, state, composed, self.plan.swept)
        self.tries[id_] = self.tries.get(id_, 0) + 1
        self.jobs[id_] = job, time.monotonic()
        self.callbacks.job_started(id_, composed)
        self.table.started(state)
        self.launcher.submit(job, config, trial.env)

    def _prepare(self) -> None:
        """Before the first job that runs: the launcher, and the sweep's own run."""
        if self.launcher is None:
            self.launcher, self.policy = self.plan.make_launcher(self.first)
            self.table.slots = self.launcher.slots
            self._probe(self.launcher)
            self._open_parent()
            self.callbacks.started()

    def _probe(self, launcher: Launcher) -> None:
        """Try a few batches of each kind of the jobs that are to run, where there are many."""
        left = [trial for id_, trial in self.plan.jobs if self.again or not self._is_done(id_)]
        chosen = kinds(self.plan, left)
        if self.only_failed or not worthwhile(launcher, len(chosen), len(left)):
            return
        found = probe(self.plan, self.folder, launcher, chosen, lambda: self.stopped is not None)
        if found:
            self.table.note(found.line(len(left), launcher.slots))

    def _is_done(self, id_: str) -> bool:
        return id_ in self.known and self.known[id_].state == "done"

    def _open_parent(self) -> None:
        self.whole.unlink(missing_ok=True)
        self.parent = Parent(open_job(self.folder.path), self.first, self.plan.swept)
        self.parent.recording.start()

    def close(self, figures: Callable[[], dict[str, Any]]) -> RecordingResult | None:
        """End the sweep's own run; nothing where this session did not start a job and the last one left it whole."""
        if self.launcher:
            self.callbacks.ended()
        if (
            self.parent is None
            and not self.whole.is_file()
            and (self.folder.path / "journal.jsonl").is_file()
        ):
            self._open_parent()  # its driver was killed when all was done but this
        if self.parent is None:
            return None
        recorded = self.parent.finish(list(self.session.values()), self.stopped is not None, figures())
        write_json(self.whole, asdict(recorded))
        return recorded

    def _wait(self, source: TrialSource) -> None:
        assert self.launcher is not None
        for job, code in self.launcher.poll(LOOK):
            id_ = next(id_ for id_, (running, _) in self.jobs.items() if running.path == job.path)
            self._ended(source, id_, code)
        now, limit = time.monotonic(), self.policy.max_minutes
        for id_, (job, begun) in self.jobs.items():
            over = limit is not None and now - begun > 60 * limit
            if (over or self.stopped) and now > self.asked.get(id_, 0.0):
                if over and not self.stopped:
                    self.over_time.add(id_)
                self.asked[id_] = now + GRACE  # when it is asked again, which ends it at once
                self.launcher.stop(job)

    def _ended(self, source: TrialSource, id_: str, code: int) -> None:
        """Write down what became of a job, tell the source, or try it once more."""
        job, begun = self.jobs.pop(id_)
        state = self._outcome(self.session[id_], job, code)
        if state.state != "done":
            state = replace(state, seconds=time.monotonic() - begun)
        self.session[id_] = self.folder.save(state)
        self.asked.pop(id_, None)
        self.callbacks.job_ended(id_, code, state.value)
        self.table.finished(state)
        again = (
            state.state == "failed"
            and code != ConfigError.exit_code
            and self.tries[id_] <= self.policy.retries
        )
        if again and not (self.stopped or self.halted):
            self._start(id_, self.trials[id_][0])
            return
        self.halted |= state.state == "failed" and self.policy.on_failure == "stop"
        for trial in self.trials.pop(id_):
            self._tell(source, trial, state)

    def _outcome(self, state: JobState, job: Job, code: int) -> JobState:
        result = read_json(job.path / "result.json")
        if code == 0 and result:
            return replace(state, state="done", code=0, **result_fields(result, self.monitor["metric"]))
        if self.stopped and code in ENDED:
            return replace(state, state="killed", code=code, reason=signal.Signals(self.stopped).name)
        reason = last_line(job.path)
        if id_over := state.id in self.over_time:
            reason = f"hydra.launcher.max_minutes={self.policy.max_minutes} were over"
        elif code > 128:
            name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code)
            reason = f"ended by {name}" + (" (is the memory full?)" if code == 128 + signal.SIGKILL else "")
        self.over_time.discard(state.id)
        where = self.folder.path.parent / self.folder.path.name / state.directory
        return replace(
            state, state="failed", code=code, reason=reason if id_over or reason else f"see {where}"
        )

    def _tell(self, source: TrialSource, trial: TrialSpec, state: JobState) -> None:
        """Tell the source what it may learn from; a job that was stopped will be asked for again."""
        if state.state == "done":
            result = read_json(self.folder.path / state.directory / "result.json")
            source.tell(trial, TrialResult(0, result.get("metrics", {}), state.pruned))
        elif state.state == "failed":  # by a signal too: only with the sweep it is stopped, and comes again
            source.tell(trial, TrialResult(1 if state.code in ENDED else state.code or 1))
