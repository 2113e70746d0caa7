"""What all tests share: a project folder of their own, and the real program in a forked warm process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several tests share the cores

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from regente.jobs.fast_exit import FastExit
from regente.jobs.job import Job
from regente.sweeps import fork_server as forking
from regente.sweeps import local
from regente.sweeps.slot import redirect
from regente.tracking import recorder, shipper

WARM = [
    *("regente.training.fit", "regente.config.compose", "regente.config.check", "regente.sweeps.session"),
    *("regente.inference.metrics", "regente.inference.predictor"),
    *("mlflow.tracking", "mlflow.pytorch", "mlflow.store.tracking.sqlalchemy_store", "regente.tracking.sync"),
    *("torchvision", "tests.warm"),
    *(
        "torch.export._trace",
        "regente.tracking.run_artifacts",
        "regente.tracking.figures",
    ),  # of each recorded run
]


START_SHIPPER = recorder.start_shipper


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.strip().splitlines()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run the whole program: `make quick` takes only the smoke runs of them."""
    for item in items:
        if "warm" in getattr(item, "fixturenames", ()):
            item.add_marker("program")


@pytest.fixture(scope="session")
def warm() -> ForkServerContext:
    """A server that has imported torch and Lightning, so that a run costs a fork instead of six seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM)
    return context


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder as working directory, with a cache folder and a key of its own; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which MLflow sets in this process
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{tmp_path}/"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store without runs: to make one takes MLflow three seconds."""
    from regente.tracking.store import open_store

    folder = tmp_path_factory.mktemp("store")
    open_store("sqlite:///mlflow.db", folder, "Default")
    return folder / "mlflow.db"


@pytest.fixture
def store(project: Path, empty_store: Path) -> Path:
    """The project has a store already."""
    return Path(shutil.copy(empty_store, project / "mlflow.db"))


@pytest.fixture
def start(project: Path, warm: ForkServerContext) -> Iterator[Callable[..., ForkServerProcess]]:
    """Start `regente WORDS...` in the project; its output goes to the files `out` and `err`.

    Its shipper is forked from it, with MLflow in it already; `cold`: it is started as users have it.
    """
    started: list[ForkServerProcess] = []

    def begin(*words: str, env: dict[str, str] | None = None, cold: bool = False) -> ForkServerProcess:
        full = {**os.environ, **(env or {})}
        process = warm.Process(target=_regente, args=(words, str(project), full, cold))
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


@pytest.fixture
def regente(project: Path, start: Callable[..., ForkServerProcess]) -> Callable[..., Ended]:
    """Run `regente WORDS...` in the project to its end."""

    def run(
        *words: str, env: dict[str, str] | None = None, cold: bool = False, timeout: float = 200
    ) -> Ended:
        process = start(*words, env=env, cold=cold)
        process.join(timeout)
        assert not process.is_alive(), f"regente {' '.join(words)} still runs after {timeout} s"
        return Ended(process.exitcode, (project / "out").read_text(), (project / "err").read_text())

    return run


class ForkedServer(forking.ForkServer):
    """The server of a sweep's jobs, forked from this process, which has imported all of it."""

    def _start_process(self, connection: Any, log: Path, modules: Sequence[str]) -> Any:
        def run() -> int:
            self.connection.close()
            forking.serve(connection, FastExit())
            return 0

        return forking.ForkedProcess(run)


def fork_shipper(job: Job, *, low_priority: bool = True) -> Any:
    """The shipper, with MLflow in it already; one that takes over does not inherit what MLflow knows of the training."""
    if not low_priority:
        return START_SHIPPER(job, low_priority=False)

    def run() -> int:
        redirect(job.path / "shipper.log", 1, 2)
        return shipper.main(job.path, low_priority=low_priority)

    return forking.ForkedProcess(run)


def _regente(words: tuple[str, ...], project: str, env: dict[str, str], cold: bool) -> None:
    os.chdir(project)
    os.environ.clear()
    os.environ.update(env)
    for name, number in (("out", 1), ("err", 2)):
        Path(name).write_text("")
        redirect(name, number)
    sys.argv = ["regente", *words]
    multiprocessing.set_start_method("fork", force=True)  # as users have it, where a loader has workers
    from regente.cli.main import main

    if not cold:
        forking.fork_programs()
        recorder.start_shipper = fork_shipper  # type: ignore[assignment]
        local.ForkServer = ForkedServer  # type: ignore[misc]
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
