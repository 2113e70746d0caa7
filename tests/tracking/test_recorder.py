"""What a run leaves in MLflow, and that nothing logged is lost: real stores, real servers, real kills."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow.tracking import MlflowClient

from regente.config.compose import compose
from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.config.tracking_uri import absolute_uri
from regente.jobs.job import freeze
from regente.jobs.process_identity import ProcessIdentity, boot_id, process_identity
from regente.tracking.journal import Journal, read
from regente.tracking.mlflow_run import Shipment
from regente.tracking.recorder import Recorder, waited_for_core
from regente.tracking.shipping_state import read_state
from regente.tracking.store import open_store
from tests.conftest import Ended
from tests.training.test_fit import jobs, query, until, wait_for_training

pytestmark = pytest.mark.usefixtures("store")
Run = Callable[..., Ended]
Start = Callable[..., ForkServerProcess]
FAST = ["digits_mlp", "trainer.max_epochs=2", "data.batch_size=256", "tracking.log_model=none"]
ENDLESS = ["digits_mlp", "trainer.max_epochs=100000", "callbacks=none", "tracking.log_model=none"]


def statuses(project: Path) -> list[str]:
    return [row[0] for row in query(project, "select status from runs order by start_time")]


def test_a_full_disk_ends_no_training_and_a_line_torn_by_it_hides_no_other(tmp_path: Path) -> None:
    journal = Journal(Path("/dev/full"))
    journal.write("tags", values={})
    assert journal.problem == "No space left on device"
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"kind":"a"}\n{"kin\n{"kind":"b"}\n')
    assert [line["kind"] for line in read(path, 0)[0]] == ["a", "b"]


def test_a_torn_last_line_is_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("tags", values={"a": "1"})
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"metri')
    lines, offset = read(path, 0)
    assert [line["kind"] for line in lines] == ["tags"]
    journal = Journal(path)
    journal.write("end", status="FINISHED")
    assert [line["kind"] for line in read(path, offset)[0]] == ["end"]


def test_a_process_is_distinct_from_another_of_the_same_number() -> None:
    me = process_identity(os.getpid())
    assert me.alive() is True
    assert ProcessIdentity(me.host, me.boot, me.pid, "1").alive() is False
    assert ProcessIdentity(me.host, "another boot", me.pid, me.started).alive() is False
    assert ProcessIdentity("another host", "another boot", me.pid, me.started).alive() is None
    child = subprocess.Popen(["sleep", "60"])
    found = process_identity(child.pid)
    assert found.alive() is True
    child.kill()
    child.wait()
    assert found.alive() is False
    assert process_identity(child.pid).alive() is False  # it had ended when it was looked at


def test_a_process_stays_the_same_when_the_host_name_changes() -> None:
    """A laptop gets another host name on another network."""
    me = process_identity(os.getpid())
    assert ProcessIdentity("before", me.boot, me.pid, me.started).alive() is True
    assert ProcessIdentity("before", me.boot, me.pid, "1").alive() is False


@pytest.mark.skipif(not Path("/proc/self/ns/pid").is_symlink(), reason="pid namespaces are Linux's")
def test_a_process_of_another_container_of_this_machine_cannot_be_seen() -> None:
    me = process_identity(os.getpid())
    boot = f"{me.boot.partition(' ')[0]} pid:[1]"
    for host in (me.host, "another host"):
        assert ProcessIdentity(host, boot, me.pid, me.started).alive() is None


def test_a_recorder_starts_nothing_before_its_start(project: Path) -> None:
    made = compose("digits_mlp", ["tracking.uri=sqlite:///mlflow.db"])
    job = freeze(made.yaml(), Path("runs"), experiment="e", overrides=[], command=[], choices={})
    before, threads = set(job.path.iterdir()), threading.active_count()
    recorder = Recorder(job, resolve(made.node), 0, Redactor())
    assert recorder.shipper is None
    assert set(job.path.iterdir()) == before
    assert threading.active_count() == threads
    recorder.start()
    assert recorder.shipper is not None
    assert [line["kind"] for line in read(job.journal, 0)[0]] == ["start"]
    assert ProcessIdentity(**json.loads((job.path / "process.json").read_text())).alive() is True
    recorder.calls.end()
    recorder.shipper.kill()
    recorder.shipper.wait(60)
    recorder.journal.close()


def test_files_are_shipped_when_they_have_changed_and_one_that_cannot_be_is_noted(project: Path) -> None:
    made = compose("digits_mlp", ["tracking.uri=sqlite:///mlflow.db"])
    job = freeze(made.yaml(), Path("runs"), experiment="e", overrides=[], command=[], choices={})
    journal = Journal(job.journal)
    journal.write("start", experiment="e", name="n", params={}, tags={})
    shipment = Shipment(job, "sqlite:///mlflow.db")
    shipment.ship()
    (run,) = query(project, "select run_uuid from runs")
    there = project / "mlartifacts/e" / run[0] / "artifacts"
    (there / "bad.txt/folder").mkdir(parents=True)  # the store cannot write a file of this name
    folder = job.path / "artifacts"
    (folder / "said").mkdir(parents=True)
    for name in ("bad.txt", "old.txt", "said/new.txt"):
        (folder / name).write_text("a")
    os.utime(folder / "old.txt", (0, 0))  # by the clock of another machine
    (project / "elsewhere.txt").write_text("secret")
    (folder / "link.txt").symlink_to(project / "elsewhere.txt")
    shipment.ship_files()
    assert [(there / name).read_text() for name in ("old.txt", "said/new.txt")] == ["a", "a"]
    (there / "said/new.txt").unlink()  # which would come again, were it shipped twice
    (folder / "old.txt").write_text("ab")
    os.utime(folder / "old.txt", (0, 0))
    journal.write("end", status="FINISHED")
    shipment.ship()
    assert (there / "old.txt").read_text() == "ab"
    assert not (there / "said/new.txt").exists() and not (there / "link.txt").exists()
    assert statuses(project) == ["FINISHED"]
    (lost,) = shipment.state["lost"]
    assert lost.startswith("bad.txt: ") and "directory" in lost

    folder.rename(project / "moved")
    folder.symlink_to(project / "moved")
    shipment.state["uploaded"] = {}
    assert shipment.ship_files() == []
    assert not (there / "said/new.txt").exists()


CALLS = """
import mlflow
from pytorch_lightning import Callback
mlflow.pytorch.autolog(log_models=False)

class Calls(Callback):
    def on_train_epoch_end(self, trainer, module):
        mlflow.log_metric("fluent", 1.5, step=trainer.current_epoch)
        mlflow.log_text("hello", "said/fluent.txt")
"""


def test_a_run_explains_itself(regente: Run, project: Path) -> None:
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):
        subprocess.run(["git", *command.split()], cwd=project, check=True)
    (project / "notes.py").write_text("answer = 42\n")
    words = ["digits_mlp", "trainer.max_epochs=2", "data.batch_size=256", "optimizer.lr=3e-3"]
    words += ["tags=[dev,first]", "notes='a try'"]
    (project / "calls.py").write_text(CALLS)
    ended = regente("train", *words, "+callbacks.calls._target_=calls.Calls")
    assert ended.code == 0, ended.err
    (job,) = jobs(project)
    until(lambda: json.loads((job / "recorded.json").read_text()).get("complete") is True, 200)
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "digits_mlp"]
    (run,) = client.search_runs([experiment.experiment_id])
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    _, first, notes, values, *_ = tags["mlflow.note.content"].split("\n\n")
    assert re.fullmatch(r"val/acc \*\*[\d.]+\*\*: place 1 of 1 runs of digits_mlp when it ended", first)
    assert notes == "a try"
    assert re.match(r"val/loss \*\*[\d.]+\*\*, val/acc \*\*[\d.]+\*\*, test/loss", values)
    assert re.fullmatch("[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert tags["regente.dirty"] == "true"
    assert re.fullmatch("[0-9a-f]{12}", tags["regente.fingerprint"])
    assert "optimizer.lr=3e-3" in tags["regente.overrides"]
    assert (tags["tags"], tags["notes"]) == ("dev, first", "a try")
    assert metrics["fluent"] == 1.5
    assert params["optimizer_name"] == "Adam"  # of autolog
    assert "regente.model" not in tags
    assert tags["regente.parameters"] == tags["regente.trainable"] == "118282"
    assert tags["regente.device"] == "cpu"
    assert params["seed"] == "0"
    assert {"train/lr", "train/samples_per_second", "best/val/acc", "best/epoch", "throughput"} <= set(
        metrics
    )
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "Digits"
    assert len(dataset.dataset.digest) == 32

    artifacts = project / "mlartifacts" / "digits_mlp" / run.info.run_id / "artifacts"
    found = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert {
        "config/config.yaml",
        "environment/packages.txt",
        "environment/hardware.json",
        "model/model.txt",
        "said/fluent.txt",
    } <= found
    assert {
        f"figures/{name}.svg" for name in ("learning_curves", "confusion_matrix", "worst_mistakes")
    } <= found
    assert "+answer = 42" in (artifacts / "code/changes.patch").read_text()
    assert "torch==" in (artifacts / "environment/packages.txt").read_text()
    best = Path(tags["regente.best_checkpoint"])
    assert (artifacts / "checkpoints" / best.name).samefile(best)  # a hard link, no second copy

    (model,) = client.search_logged_models([experiment.experiment_id])
    program = (
        "import sys; sys.modules['regente'] = None\n"
        "import mlflow, numpy as np\n"
        f"mlflow.set_tracking_uri('sqlite:///{project}/mlflow.db')\n"
        f"model = mlflow.pyfunc.load_model('models:/{model.model_id}')\n"
        "assert model.predict(np.zeros((5, 1, 28, 28), dtype=np.float32)).shape == (5, 10)\n"
        "assert model.metadata.signature is not None and model.input_example.shape == (2, 1, 28, 28)\n"
        f"program = mlflow.pytorch.load_model('models:/{model.model_id}')\n"
        "import torch; assert program(torch.zeros(7, 1, 28, 28)).shape == (7, 10)\n"
    )
    env = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_shipper_takes_over_and_nothing_of_the_run_is_left(project: Path, store: Path) -> None:
    made = compose("digits_mlp", [])
    job = freeze(made.yaml(), Path("runs"), experiment="e", overrides=[], command=[], choices={})
    recorder = Recorder(job, resolve(made.node), 0, Redactor([]))
    recorder.start()
    assert recorder.shipper is not None
    first = recorder.shipper
    assert waited_for_core(first.pid) is not None or sys.platform != "linux"
    assert recorder.calls is not None
    recorder.calls.end()
    recorder.calls = None  # as at the end of a run, when a shipper that starves is replaced
    recorder._take_over()
    recorder.journal.write("metrics", step=1, values={"val/acc": 0.5})
    result = recorder.finish("FINISHED")
    assert (result.reason, first.returncode, recorder.shipper.poll()) == ("", -9, 0)
    assert query(project, "select status from runs") == [("FINISHED",)]
    assert query(project, "select key, value from metrics") == [("val/acc", 0.5)]
    assert read_state(job.path)["complete"]


@pytest.mark.parametrize(("policy", "kept"), [("none", 0), ("last", 1), ("top_k", 2)])
def test_checkpoints_go_into_the_run_by_policy(policy: str, kept: int, regente: Run, project: Path) -> None:
    ended = regente("train", *FAST, f"tracking.checkpoints={policy}", "callbacks.checkpoint.save_top_k=2")
    assert ended.code == 0, ended.err
    assert len(list((project / "mlartifacts").rglob("*.ckpt"))) == kept


def test_a_parameter_beyond_mlflows_limit_is_whole_in_an_artifact(regente: Run, project: Path) -> None:
    names = "[" + ",".join([f"'{number} {'x' * 800}'" for number in range(10)]) + "]"
    ended = regente("train", *FAST, f"data.class_names={names}", "tracking.run_name=long")
    assert ended.code == 0, ended.err
    ((value,),) = query(project, "select value from params where key = 'data.class_names'")
    assert len(value) == 6000
    (file,) = (project / "mlartifacts").rglob("long_params.json")
    assert len(json.loads(file.read_text())["data.class_names"]) > 8000
    assert query(project, "select value from tags where key = 'regente.long_params'") == [
        ("data.class_names",)
    ]


BROKEN_DATA = """
from regente.data.digits import Digits
class Broken(Digits):
    def read(self):
        raise RuntimeError("no such disk")
"""


def test_every_ending_leaves_its_true_status(regente: Run, start: Start, project: Path) -> None:
    (project / "broken.py").write_text(BROKEN_DATA)
    assert regente("train", *FAST).code == 0
    assert regente("train", *FAST, "data._target_=broken.Broken").code == 1
    assert regente("train", *FAST, "optimizer=sgd", "optimizer.lr=1e30").code == 7
    int_, term, hup, kill = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
    ends = [([int_], {130}), ([int_, int_], {130, -int_}), ([term], {143}), ([hup], {129}), ([kill], {-kill})]
    for numbers, codes in ends:
        before = set(jobs(project))
        process = start("train", *ENDLESS)
        wait_for_training(project, before)
        for number in numbers:
            assert process.pid is not None
            os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode in codes
    assert regente("sync").code == 0  # the next command
    assert statuses(project) == [
        "FINISHED",
        "FAILED",
        "FAILED",
        "KILLED",
        "KILLED",
        "KILLED",
        "KILLED",
        "KILLED",
    ]
    failures = dict(
        query(project, "select value, count(*) from tags where key = 'regente.failure' group by value")
    )
    assert any("no such disk" in failure for failure in failures)


def test_a_run_whose_process_and_shipper_died_is_shipped_and_closed_by_the_next_command(
    regente: Run, start: Start, project: Path
) -> None:
    process = start("train", *ENDLESS, cold=True)
    job = wait_for_training(project)
    (pid,) = shippers(job)
    # it leaves the cores to the training, once it has imported what it needs; sessions have equal rights on Linux alone
    if (autogroup := Path(f"/proc/{pid}/autogroup")).is_file():
        until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 19)
        assert autogroup.read_text().split()[-1] == "19"
    os.kill(pid, signal.SIGKILL)
    assert process.pid is not None
    process.kill()
    process.join(10)
    with (job / "journal.jsonl").open("ab") as file:
        file.write(b'{"kind":"metrics","ti')  # what a power cut leaves
    ended = regente("sync")
    assert ended.code == 0, ended.err
    assert f"shipped: {job.relative_to(project)}" in ended.out
    assert statuses(project) == ["KILLED"]
    lines, _ = read(job / "journal.jsonl", 0)
    written = [
        (line["step"], line["values"]["train/loss"])
        for line in lines
        if "train/loss" in line.get("values", {})
    ]
    assert query(project, "select step, value from metrics where key = 'train/loss' order by step") == written
    ((end,),) = query(project, "select end_time from runs")
    assert end == lines[-1]["time"]
    assert "all runs are complete" in regente("sync").out


def shippers(job: Path) -> list[int]:
    """The processes that ship a job's journal."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"regente.tracking.shipper" in words and str(job).encode() in words:
            found.append(int(folder.name))
    return found


def test_a_run_that_lives_is_left_alone(regente: Run, start: Start, project: Path) -> None:
    process = start("train", *ENDLESS)
    wait_for_training(project)
    assert "being shipped" in regente("sync").out
    assert statuses(project) == ["RUNNING"]
    assert process.is_alive()
    process.terminate()
    process.join(60)


def test_a_dead_run_of_another_boot_is_closed_and_a_foreign_one_is_not(regente: Run, project: Path) -> None:
    assert regente("train", *FAST).code == 0
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    me = process_identity(os.getpid())
    facts = {"host": me.host, "boot": me.boot, "pid": str(me.pid), "started": me.started}
    made = {
        "alive": client.create_run("1", tags={f"regente.{key}": value for key, value in facts.items()}),
        "other boot": client.create_run(
            "1", tags={f"regente.{k}": v for k, v in (facts | {"boot": "x"}).items()}
        ),
        "not ours": client.create_run("1"),
    }
    assert boot_id() == me.boot
    assert regente("sync").code == 0
    found = {name: client.get_run(run.info.run_id).info.status for name, run in made.items()}
    assert found == {"alive": "RUNNING", "other boot": "KILLED", "not ours": "RUNNING"}


class Server:
    """A real `mlflow server` on loopback, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = f"-m mlflow server --host 127.0.0.1 --port {self.port} --workers 1"
        store = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        env = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command.split(), *store],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, 120)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_store, made.folder / "mlflow.db")
    yield made
    made.kill()


def test_a_server_that_is_away_at_the_start_is_told_in_one_line_and_gets_all_of_it_later(
    regente: Run, server: Server, project: Path
) -> None:
    ended = regente("train", *FAST, f"tracking.uri={server.uri}")
    assert ended.code == 0, ended.err
    told = [line for line in ended.out.splitlines() if "does not answer" in line]
    assert len(told) == 1
    assert "regente sync" in told[0]
    assert "incomplete (" in ended.out
    server.start()
    assert regente("sync").code == 0
    (job,) = jobs(project)
    expected = sum(
        len(line["values"]) for line in read(job / "journal.jsonl", 0)[0] if line["kind"] == "metrics"
    )
    rows = query(
        server.folder,
        "select status, count(*) from runs join metrics using (run_uuid) where step > 0 and key not like 'system/%'",
    )
    assert rows == [("FINISHED", expected)]


@pytest.mark.slow
def test_a_server_killed_in_mid_run_and_started_again_has_every_metric_once(
    regente: Run, start: Start, server: Server, project: Path
) -> None:
    server.start()
    process = start(
        "train",
        *ENDLESS,
        f"tracking.uri={server.uri}",
        "trainer.max_steps=3000",
        "trainer.log_every_n_steps=1",
    )
    job = wait_for_training(project)
    until(lambda: query(server.folder, "select count(*) from metrics")[0][0] > 0)
    server.kill()
    process.join(120)
    assert process.exitcode == 0, (project / "err").read_text()
    server.start()
    assert regente("sync").code == 0
    lines = [line for line in read(job / "journal.jsonl", 0)[0] if line["kind"] == "metrics"]
    written = sorted(
        (line["step"], value)
        for line in lines
        for key, value in line["values"].items()
        if key == "train/loss"
    )
    assert len(written) == 3000
    assert (
        query(server.folder, "select step, value from metrics where key = 'train/loss' order by step, value")
        == written
    )
    assert query(server.folder, "select status from runs") == [("FINISHED",)]


def test_a_sweep_is_a_parent_run_with_its_jobs_as_children_named_by_what_differs(
    regente: Run, project: Path
) -> None:
    ended = regente("train", *FAST, "-m", "optimizer.lr=1e-3,1e-2")
    assert ended.code == 0, ended.err
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "digits_mlp"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["regente.kind"] == "sweep"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.params["optimizer.lr"] for run in children} == {"0.001", "0.01"}
    assert {run.info.run_name for run in children} == {"lr=0.001", "lr=0.01"}
    assert not (project / "runs/multirun.yaml").exists()
    best = max(run.data.metrics["best/val/acc"] for run in children)
    assert parent.data.metrics["best/val/acc"] == pytest.approx(best)
    views = [key for key in client.get_experiment(experiment.experiment_id).tags if "sharedViewState" in key]
    assert len(views) == 1


REFUSED = {
    "E06 no such kind of store": (["tracking.uri=foo://x"], 2, "tracking.uri=foo://x", "use sqlite:///FILE"),
    "E10 mistyped path": (["tracking.uri=sqlite:///nope/x.db"], 2, "no folder", "mend the path"),
    "E10 mistyped name": (["tracking.uri=sqlite:///mflow.db"], 2, "mflow.db", "tracking.create=true"),
    "E11 folder": (
        ["tracking.uri=./mlruns"],
        2,
        "tracking.uri=./mlruns",
        "mlflow migrate-filestore --source",
    ),
    "E11 folder with a scheme": (
        ["tracking.uri=file:///tmp/mlruns"],
        2,
        "tracking.uri=file:",
        "migrate-filestore",
    ),
    "unknown policy": (
        ["tracking.checkpoints=all"],
        2,
        "tracking.checkpoints=all",
        "none, best, last or top_k",
    ),
    "typo in a setting": (["tracking.url=sqlite:///x.db"], 2, "tracking.url", "did you mean tracking.uri?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_store_that_cannot_be_is_refused_before_training(case: str, regente: Run) -> None:
    words, code, name, remedy = REFUSED[case]
    ended = regente("train", *words)
    assert ended.code == code, ended.err
    assert len(ended.lines) <= 2
    assert name in ended.err
    assert remedy in ended.err


def test_e03_a_database_of_another_version_is_refused_with_the_command_that_mends_it(
    regente: Run, project: Path
) -> None:
    assert regente("train", *FAST).code == 0
    query_write(project, "update alembic_version set version_num = 'deadbeef'")
    ended = regente("train", *FAST)
    assert ended.code == 6
    assert f"mlflow db upgrade sqlite:///{project}/mlflow.db" in ended.err + ended.out


def test_e04_a_deleted_experiment_is_refused_with_the_command_that_brings_it_back(
    regente: Run, project: Path
) -> None:
    assert regente("train", *FAST).code == 0
    query_write(project, "update experiments set lifecycle_stage = 'deleted' where name = 'digits_mlp'")
    ended = regente("train", *FAST)
    assert ended.code == 6
    assert "mlflow experiments restore" in ended.err + ended.out
    query_write(project, "update experiments set lifecycle_stage = 'active' where name = 'digits_mlp'")
    synced = regente("sync")
    assert synced.out.startswith("shipped: runs/digits_mlp/"), synced.out
    # how far the second run came depends on when the refusal was known: before its training, or beside it
    assert statuses(project) in (["FINISHED", "FAILED"], ["FINISHED", "FINISHED"])
    assert regente("resume", "latest").code == 0
    assert statuses(project) == ["FINISHED", "FINISHED"]


def query_write(project: Path, sql: str) -> None:
    import sqlite3

    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute(sql)


NEW = "a'b\"c:d\n%41"


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a#b", "a\nb", NEW])
def test_the_store_of_a_folder_with_any_name_is_in_that_folder(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / name
    folder.mkdir()
    if name == NEW:  # MLflow takes three seconds to make a store
        monkeypatch.chdir(folder)
    else:
        shutil.copy(project / "mlflow.db", folder)
    before = {path for path in project.rglob("*") if not path.is_relative_to(folder)}
    for uri in ("sqlite:///mlflow.db", absolute_uri("sqlite:///mlflow.db", folder)):
        client, experiment = open_store(uri, folder, "E")
        client.log_text(client.create_run(experiment).info.run_id, "x", "a.txt")
    assert query(folder, "select count(*) from runs") == [(2,)]
    assert len(list(folder.glob("mlartifacts/**/a.txt"))) == 2
    assert {path for path in project.rglob("*") if not path.is_relative_to(folder)} == before


def test_e08_an_experiment_may_have_any_name(regente: Run, project: Path) -> None:
    assert regente("train", *FAST, "tracking.experiment='Übung 1'").code == 0
    assert query(project, "select count(*) from experiments where name = 'Übung 1'") == [(1,)]


SECRETS = {
    "environment": "hunter2-from-env",
    "password": "correct-horse-battery",
    "github": "ghp_" + "a1B2" * 9,
    "openai": "sk-proj-" + "Zz9Yy8" * 6,
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "url": "s3cr3t-in-url",
    "remote": "t0ken-in-remote",
    "patch": "hf_" + "QwErTy" * 6,
    "slack": "xoxb-" + "123456789012-abcdefABCDEF",
    "google": "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "traceback": "glpat-" + "abcDEF12345" * 2,
}
OWN = """
from torch import nn
class Own(nn.Module):
    def __init__(self, num_classes: int, api_key: str = "", password: str = "", header: str = "", note: str = "", link: str = ""):
        super().__init__()
        assert api_key == {api_key!r} and password == {password!r}
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))
    def forward(self, x):
        if {fail}:
            raise RuntimeError("token={traceback}")
        return self.layers(x)
"""


@pytest.mark.parametrize("fail", [False, True])
def test_planted_secrets_are_nowhere_in_what_a_run_leaves(fail: bool, regente: Run, project: Path) -> None:
    for command in ("init -q", f"remote add origin https://me:{SECRETS['remote']}@127.0.0.1/x.git",
                    "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):  # fmt: skip
        subprocess.run(["git", *command.split()], cwd=project, check=True)
    source = OWN.format(
        api_key=SECRETS["environment"],
        password=SECRETS["password"],
        traceback=SECRETS["traceback"],
        fail=fail,
    )
    (project / ".git/info/exclude").write_text("own_models.py\n")
    (project / "own_models.py").write_text(source)
    (project / "leak.py").write_text(f"TOKEN = '{SECRETS['patch']}'\n")
    words = [
        "model._target_=own_models.Own", "~model.widths", "~model.dropout", "~model.input_shape",
        "model.api_key=${oc.env:MY_SERVICE}", f"model.password={SECRETS['password']}",
        f"model.header={SECRETS['github']}",
        "model.note='" + " ".join(SECRETS[name] for name in ("openai", "aws", "slack", "google", "jwt")) + "'",
        f"model.link='https://me:{SECRETS['url']}@127.0.0.1/data'",
    ]  # fmt: skip
    ended = regente("train", *FAST, *words, env={"MY_SERVICE": SECRETS["environment"]})
    assert ended.code == (1 if fail else 0), ended.err
    left = [path for path in project.rglob("*") if path.is_file() and ".git" not in path.parts]
    left = [path for path in left if path.name not in ("own_models.py", "leak.py") and path.suffix != ".pyc"]
    found = [
        (name, str(path))
        for path in left
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]
    assert len(SECRETS) == 12
    assert found == []
    assert len(left) > 10
