"""The loop of a sweep: free slots get jobs, ends of jobs are written down, until there is nothing more to do."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import FrameType
from typing import Any

from regente.config.interpolation import resolve
from regente.config.overrides import key_of
from regente.config.redaction import Redactor
from regente.errors import ConfigError, RegenteError
from regente.jobs.job import Job, open_job, write_json
from regente.jobs.result import read_result
from regente.jobs.signals import SIGNALS
from regente.sweeps.hydra_callbacks import HydraCallbacks
from regente.sweeps.local import Local
from regente.sweeps.plan import Plan, Policy
from regente.sweeps.protocols import Launcher, TrialResult, TrialSource, TrialSpec
from regente.sweeps.records import Parent, best_of, job_directory
from regente.sweeps.slot import last_line
from regente.sweeps.smoke_test import kinds, smoke_test, worth_testing
from regente.sweeps.state import JobState, SweepFolder
from regente.sweeps.table import Table
from regente.tracking.recorder import RecordingResult
from regente.training.launch import GRACE

POLL_SECONDS = 0.5  # between checks of time limits and signals while no job ends
EXPORT_SECONDS = 60.0  # to export the best job's model; else the recorder does it
STOPPED = tuple(128 + number for number in (*SIGNALS, signal.SIGKILL))  # exit codes of jobs that were stopped


class Driver:
    """Runs the jobs of a sweep, each once; `rerun`: the finished ones too, `only_failed`: only the failed ones."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        table: Table,
        config: dict[str, Any],
        redact: Redactor,
        *,
        rerun: bool,
        only_failed: bool,
    ) -> None:
        self.plan, self.folder, self.table = plan, folder, table
        self.config, self.redact = config, redact  # of the first job
        self.rerun, self.only_failed = rerun, only_failed
        self.earlier = folder.load()
        self.session: dict[str, JobState] = {}  # the jobs of this command line, in their order
        self.trials: dict[str, list[TrialSpec]] = {}  # of each running job; two trials may be the same job
        self.jobs: dict[str, tuple[Job, float]] = {}  # running, with their start
        self.tries: dict[str, int] = {}  # in this session
        self.launcher: Launcher | None = None
        self.policy = Policy()
        self.parent: Parent | None = None
        self.monitor = config["monitor"]
        self.callbacks = HydraCallbacks(plan.base)
        self.signal: int | None = None  # that has stopped the sweep
        self.kill_times: dict[str, float] = {}  # of jobs that were asked to stop: when they are asked again
        self.over_time: set[str] = set()
        self.store_is_away = False  # and a line has said so
        self.halted = False  # a job failed, and on_failure=stop
        self.finished = folder.path / "finished.json"  # there when the sweep's own run has ended
        self.begun = time.monotonic()

    def run(self, source: TrialSource) -> None:
        """Run all jobs that are not done."""
        checked = None if source.adaptive else iter(self.plan.jobs)
        try:
            with self._signals():
                while True:
                    while self._may_start() and (item := self._next(source, checked)) is not None:
                        self._take(source, *item)
                    if not self.jobs:
                        break
                    self._wait(source)
                self._export_best()
        finally:
            if self.launcher:
                self.launcher.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first signal lets jobs save and end; the second ends them at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self.signal:
                self.kill_times = dict.fromkeys(self.kill_times, 0.0)
            self.signal = self.signal or number

        # a program that calls this in another thread keeps its handlers
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, stop) for number in SIGNALS if main}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _may_start(self) -> bool:
        full = self.launcher is not None and len(self.jobs) >= self.launcher.slots
        return not (self.signal or self.halted or self._late() or full)

    def _late(self) -> bool:
        limit = self.plan.base.sweep["max_minutes"]
        return limit is not None and time.monotonic() - self.begun > 60 * limit

    def _next(
        self, source: TrialSource, checked: Iterator[tuple[str, TrialSpec]] | None
    ) -> tuple[str, TrialSpec] | None:
        """The next job; a trial of a search whose config has an error has failed."""
        if checked is not None:
            return next(checked, None)
        while (trial := source.ask()) is not None:
            try:
                composed, _ = self.plan.composer.checked_config(trial.overrides)
                return self.plan.identities.of(composed.node), trial
            except ConfigError as error:
                state = JobState(f"trial-{trial.number}", self.redact_all(trial.overrides), "failed")
                state = replace(state, code=error.exit_code, reason=str(error))
                self.session[state.id] = state
                self.table.finished(state)
                source.tell(trial, TrialResult(error.exit_code))
        return None

    def redact_all(self, overrides: list[str]) -> list[str]:
        """The overrides without secrets."""
        return [self.redact.text(word) for word in overrides]

    def not_started(self, source: TrialSource) -> str:
        """How many jobs were not started, and why; empty after a signal."""
        if self.signal or not (self.halted or self._late()):
            return ""
        total = len(self.plan.jobs) or source.total
        number = f"{total - len(self.session):,}" if total else "further jobs"
        if number == "0":
            return ""
        why = "hydra.launcher.on_failure=stop" if self.halted else "sweep.max_minutes were over"
        return f", {number} not started: {why}"

    def _take(self, source: TrialSource, id_: str, trial: TrialSpec) -> None:
        """Start a job, unless it is done, runs, or is not asked for."""
        state = (
            self.session.get(id_) or self.earlier.get(id_) or JobState(id_, self.redact_all(trial.overrides))
        )
        self.session[id_] = state
        if id_ in self.jobs:
            self.trials[id_].append(trial)
        elif id_ in self.tries or (state.state == "done" and not self.rerun):
            self.table.skipped += id_ not in self.tries
            self._tell(source, trial, state)
        elif state.state == "running":  # on another host, see reconcile
            host = (state.driver or {}).get("host", "another machine")
            self.table.print(f"still runs on {host}, by its heartbeat: {state.directory}")
        elif self.only_failed and state.state != "failed":
            return
        else:
            self.trials[id_] = [trial]
            self._start(source, id_, trial)

    def _start(self, source: TrialSource, id_: str, trial: TrialSpec) -> None:
        composed, config = self.plan.composer.checked_config(trial.overrides)
        launcher = self.launcher or self._prepare()
        state = self.session[id_] = self.folder.save(self.session[id_].started())
        own = [key_of(word) for word in trial.overrides if word not in self.plan.fixed]
        swept = list(dict.fromkeys([*self.plan.swept, *own]))
        self.tries[id_] = self.tries.get(id_, 0) + 1
        try:
            job = job_directory(self.folder, state, composed, swept)
        except RegenteError as error:  # its directory is not this user's
            state = replace(state, state="failed", code=error.exit_code, reason=str(error))
            self.session[id_] = self.folder.save(state)
            self.table.finished(state)
            for each in self.trials.pop(id_):
                self._tell(source, each, state)
            return
        self.jobs[id_] = job, time.monotonic()
        self.callbacks.job_started(id_, composed)
        self.table.started(state)
        assert self.parent is not None
        launcher.submit(job, config, self.parent.environment | trial.env)

    def _prepare(self) -> Launcher:
        """Before the first job that runs: the launcher, and the sweep's own run."""
        self.launcher, self.policy = self.plan.make_launcher(self.config)
        self.table.slots = self.launcher.slots
        self._smoke_test(self.launcher)
        self._open_parent()
        self.callbacks.started()
        return self.launcher

    def _smoke_test(self, launcher: Launcher) -> None:
        """Run a few batches of each kind of the jobs that are to run, where there are many."""
        done = {} if self.rerun else self.earlier
        left = [t for id_, t in self.plan.jobs if id_ not in done or done[id_].state != "done"]
        found = kinds(self.plan, left)
        if self.only_failed or not worth_testing(launcher, len(found), len(left)):
            return
        estimate = smoke_test(self.plan, self.folder, launcher, found, lambda: self.signal is not None)
        if estimate:
            self.table.print(estimate.line(len(left), launcher.slots))

    def _open_parent(self) -> None:
        self.finished.unlink(missing_ok=True)
        self.parent = Parent(open_job(self.folder.path), self.config, self.plan.swept)
        # threads of one job wait for each other, so that a neighbour on one core stops them all; jobs do not
        self.parent.recorder.low_priority = not (
            isinstance(self.launcher, Local) and self.launcher.threads == 1
        )
        self.parent.recorder.start()

    def _export_best(self) -> None:
        """Export the model of the best job for the sweep's run, where the launcher has torch loaded."""
        best = best_of(list(self.session.values()), self.monitor["mode"])
        if (
            not (isinstance(self.launcher, Local) and self.parent and self.parent.environment and best)
            or self.signal
        ):
            return
        job = open_job(self.folder.path / best.directory)
        if resolve(job.config, ["tracking"])["tracking"]["log_model"] == "best":
            self.launcher.export_model(job, EXPORT_SECONDS)

    def close(self, figures: Callable[[], dict[str, Any]]) -> RecordingResult | None:
        """End the sweep's own run; None where no job was started and an earlier session has ended that run."""
        if self.launcher:
            self.callbacks.ended()
        opened = (self.folder.path / "journal.jsonl").is_file()
        if self.parent is None and opened and not self.finished.is_file():
            self._open_parent()  # its driver was killed after the last job
        if self.parent is None:
            return None
        recorded = self.parent.finish(list(self.session.values()), self.signal is not None, figures())
        write_json(self.finished, asdict(recorded))
        return recorded

    def _wait(self, source: TrialSource) -> None:
        """Wait for jobs to end, and stop those that are over their time, or all after a signal."""
        assert self.launcher is not None
        if self.parent and self.parent.recorder.problem and not self.store_is_away:
            self.store_is_away = True
            self.table.print(self.parent.recorder.problem_note())
        for job, code in self.launcher.poll(POLL_SECONDS):
            id_ = next(id_ for id_, (running, _) in self.jobs.items() if running.path == job.path)
            self._ended(source, id_, code)
        now, limit = time.monotonic(), self.policy.max_minutes
        for id_, (job, begun) in self.jobs.items():
            over = limit is not None and now - begun > 60 * limit
            if (over or self.signal) and now > self.kill_times.get(id_, 0.0):
                if over and not self.signal:
                    self.over_time.add(id_)
                self.kill_times[id_] = now + GRACE
                self.launcher.stop(job)

    def _ended(self, source: TrialSource, id_: str, code: int) -> None:
        """Write down how a job ended and tell the source, or start it once more."""
        job, begun = self.jobs.pop(id_)
        state = self._end_state(self.session[id_], job, code)
        if state.state != "done":
            state = replace(state, seconds=time.monotonic() - begun)
        self.session[id_] = self.folder.save(state)
        self.kill_times.pop(id_, None)
        self.callbacks.job_ended(id_, code, state.value)
        self.table.finished(state)
        failed = state.state == "failed"
        retry = failed and code != ConfigError.exit_code and self.tries[id_] <= self.policy.retries
        if retry and not (self.signal or self.halted):
            self._start(source, id_, self.trials[id_][0])
            return
        self.halted |= failed and self.policy.on_failure == "stop"
        for trial in self.trials.pop(id_):
            self._tell(source, trial, state)

    def _end_state(self, state: JobState, job: Job, code: int) -> JobState:
        over_time = state.id in self.over_time
        self.over_time.discard(state.id)
        if code == 0 and (done := state.done(self.folder.path, self.monitor["metric"])):
            return done
        if self.signal and code in STOPPED:
            return replace(state, state="killed", code=code, reason=signal.Signals(self.signal).name)
        if over_time:
            reason = f"hydra.launcher.max_minutes={self.policy.max_minutes} were over"
        elif code > 128:
            name = signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else str(code)
            reason = f"ended by {name}" + (" (is the memory full?)" if code == 128 + signal.SIGKILL else "")
        else:
            reason = last_line(job.path) or f"see {job.path}"
        return replace(state, state="failed", code=code, reason=reason)

    def _tell(self, source: TrialSource, trial: TrialSpec, state: JobState) -> None:
        """Tell the source the result; not of a job that was stopped with the sweep, which the next session runs."""
        if state.state == "done":
            result = read_result(self.folder.path / state.directory)
            source.tell(trial, TrialResult(0, result.get("metrics", {}), state.pruned))
        elif (
            state.state == "failed"
        ):  # by a signal too: then the job was killed alone, and its trial has failed
            source.tell(trial, TrialResult(1 if state.code in STOPPED else state.code or 1))
