"""Whatever stands in a file that Regente reads: it is read, passed over, or refused in a line, and never a traceback."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regente.data.core.cache import description, require_undamaged
from regente.data.core.decoding import read_decoded
from regente.data.core.file_inputs import read_array
from regente.errors import RegenteError
from regente.inference.model_card import _origin
from regente.inference.rerun import _packages, compare
from regente.jobs import checkpoint_files
from regente.jobs.job import DATA, PROVENANCE, open_job, read_json, write_json
from regente.jobs.result import read_result
from regente.jobs.runs import Run, find, run_id
from regente.jobs.trace_file import read_trace
from regente.jobs.trust import read_config, require_trusted_job
from regente.models.features.feature_file import FeatureFile
from regente.sweeps.state import JobState, SweepFolder
from regente.tracking.figures import learning_curves
from regente.tracking.journal import cut_torn_line, read
from regente.tracking.recorder import attempts
from regente.tracking.shipping_state import read_state
from regente.tracking.sync import process_of_job, unshipped
from regente.training.callbacks.trace import Replay
from regente.training.checkpoints.initialization import find_resume_state
from regente.training.checkpoints.resume import _finished
from regente.training.finders import found_before

Read = Callable[[Path], Any]  # of a job directory
KEPT = settings(
    max_examples=25, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


def saved(content: Any) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def array() -> bytes:
    file = BytesIO()
    np.save(file, np.zeros((2, 3), np.float32))
    return file.getvalue()


def lines(*each: Any) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in each).encode()


def result(path: Path) -> None:
    config: dict[str, Any] = {"trainer": {}}
    _finished(open_job(path), config, config)
    JobState("a", [], directory=".").done(path, "m")
    run = Run(open_job(path), read_result(path))
    _ = run.score, run.metrics, run.monitor
    _ = find(str(path), path).checkpoint


def trace(path: Path) -> None:
    found = read_trace(path / "trace.jsonl")
    if found:
        compare(found, found)
        compare(found, found[:1])
        Replay(found)


def journal(path: Path) -> None:
    found, _ = read(path / "journal.jsonl", 0)
    attempts(open_job(path))
    cut_torn_line(path / "journal.jsonl")
    assert found or learning_curves(found) is None


def sweep(path: Path) -> None:
    folder = SweepFolder(path)
    _ = folder.load(), folder.driver(), folder.driven(), folder.queue()
    folder.own_queue()


def checkpoint(path: Path) -> None:
    file = path / "checkpoints/x.ckpt"
    checkpoint_files.damage(file)
    checkpoint_files.weights_of(checkpoint_files.load_foreign(file))
    checkpoint_files.load(file)


def images(path: Path) -> None:
    try:
        read_decoded(path / "images", 2)
    except (OSError, ValueError, RecursionError) as error:  # the caller's line
        raise RegenteError from error


def features(path: Path) -> None:
    FeatureFile(path / "features", "train", (2, 3), torch.float32).read()


def state(path: Path) -> None:
    _ = read_state(path), run_id(path), list(unshipped(path))


def data(path: Path) -> None:
    _origin(Run(open_job(path), {}), read_json(path / DATA), None)


def provenance(path: Path) -> None:
    list(_packages(read_json(path / PROVENANCE).get("packages") or []))


def resume_state(path: Path) -> None:
    find_resume_state(open_job(path), [])


def trusted(path: Path) -> None:
    read_config(open_job(path), path)
    require_trusted_job(open_job(path), path)


QUEUE = {"experiment": "x", "overrides": ["a=1"], "swept": [], "monitor": {"metric": "m"}, "total": 1}
QUEUE |= {"jobs": {"a": ["a=1"]}, "config_dirs": [], "pins": {"a": "b"}, "signature": ""}
PROCESS = {"host": "h", "boot": "b", "pid": 1, "started": "1"}
RESULT = {"best_epoch": 1, "best_checkpoint": "x", "pruned": False, "epochs": 1, "metrics": {"val/acc": 0.5}}
RESULT |= {"monitor": {"metric": "val/acc", "mode": "max"}, "seconds": 1.0, "peak_megabytes": 1.0}
TRACE = {"step": 1, "losses": [0.1], "weights": "ab", "epoch": 1, "metrics": {"val/acc": 0.1}}
# each file: its content as Regente writes it, and all that reads it
FILES: dict[str, tuple[Any, Read]] = {
    "job.json": (None, lambda path: require_trusted_job(open_job(path), path)),
    "config.yaml": (None, trusted),
    "result.json": (RESULT, result),
    "journal.jsonl": (lines({"kind": "start", "time": 1}, {"kind": "metrics", "step": 1, "values": {}}), journal),
    "recorded.json": ({"run_id": "a", "offset": 1, "ended": False}, state),
    "process.json": (PROCESS, lambda path: process_of_job(open_job(path)).alive()),
    "queue.json": (QUEUE, sweep),
    "driver.json": ({"process": PROCESS, "beat": 1}, sweep),
    "states/a.json": ({"id": "a", "overrides": [], "state": "running", "driver": PROCESS}, sweep),
    "trace.jsonl": (lines(TRACE, TRACE), trace),
    DATA: ({"name": "x", "source": "s", "digest": "d", "splits": {"train": 1}}, data),
    PROVENANCE: ({"code": {}, "hardware": {}, "packages": ["a==1"]}, provenance),
    "found.json": ({"optimizer.lr": 0.1}, lambda path: found_before(open_job(path))),
    "fitted_state.json": ({"mean": [0.1]}, lambda path: Run(open_job(path), {}).fitted_state),
    "features/train.npy": (array(), features),
    "features/train.rows": (2, features),
    "features/checksums.json": ({"train.npy": [1]}, lambda path: require_undamaged(path / "features")),
    "features/description.txt": (b"x", lambda path: description(path / "features")),
    "images/digests": (b"0" * 32, images),
    "images/bad.json": ({"a.png": "truncated"}, images),
    "example.npy": (array(), lambda path: read_array(path / "example.npy")),
    "resume/step-5.ckpt": (saved({"global_step": 5, "position": {"grouped_steps": None}}), resume_state),
    "checkpoints/x.ckpt": (saved({"state_dict": {"a": torch.zeros(2)}}), checkpoint),
}  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def run_directory() -> Any:
    """A job directory with each of the files as it should be."""
    from regente.jobs.job import freeze

    with TemporaryDirectory() as folder:
        text = "model: {_target_: torch.nn.Identity}\ndata: {x: '${oc.env:HOME}'}\ntracking: {uri: null}\n"
        facts: dict[str, Any] = {"experiment": "x", "overrides": ["a=1"], "command": [], "choices": {}}
        path = freeze(text, Path(folder) / "runs", "x", **facts, resumes={"1": {"a": "1 -> 2"}}).path
        write_json(path / "job.json", {**read_json(path / "job.json"), "signature": "", "project": str(path)})
        for name, (content, _) in FILES.items():
            (path / name).parent.mkdir(exist_ok=True)
            if content is not None:
                (path / name).write_bytes(as_bytes(content))
        (path / "images/pixels").write_bytes(bytes(2 * 3 * 4))
        yield path


def as_bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


@st.composite
def changed(draw: Any, whole: bytes) -> bytes:
    """Another content of a file: any bytes, any JSON, its own JSON with another value, its own bytes cut or with others."""
    way = draw(st.sampled_from(["bytes", "value", "JSON", "cut", "bits", "deep"]))
    if way == "bytes":
        return draw(st.binary(max_size=40))
    if way == "deep":
        return draw(st.sampled_from([b"[", b'{"a":', b"- "])) * 5_000
    if way in ("value", "JSON"):
        try:
            start = json.loads(whole.splitlines()[0] if b"\n{" in whole else whole)
        except (ValueError, IndexError, RecursionError):
            start = None
        return json.dumps(draw(VALUES) if way == "JSON" else _with_other_value(draw, start)).encode() + b"\n"
    place = draw(st.integers(0, max(0, len(whole) - 1)))
    if way == "cut":
        return whole[:place]
    return whole[:place] + draw(st.binary(min_size=1, max_size=8)) + whole[place + draw(st.integers(0, 8)) :]


def _with_other_value(draw: Any, node: Any) -> Any:
    """The same with another value in one place, or one key less."""
    if isinstance(node, dict) and node and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(node)))
        rest = {name: value for name, value in node.items() if name != key}
        return {**rest, key: _with_other_value(draw, node[key])} if draw(st.integers(0, 4)) else rest
    if isinstance(node, list) and node and draw(st.booleans()):
        return [_with_other_value(draw, node[0]), *node[1:]]
    return draw(VALUES)


def odd_texts(name: str, whole: bytes) -> Iterator[bytes]:
    """The content with texts in it that no path and no store takes, each in the place of one value."""
    if name == "config.yaml":
        yield from (b"?", b"model: {? : 1}", b"2001-01-01: 1")
    with suppress(ValueError):
        first, *rest = whole.splitlines() if b"\n{" in whole else [whole]
        for key in json.loads(first) if first.startswith(b"{") else ():
            for odd in ("\ud800", "\0", "a" * 5_000):
                for value in (odd, [odd], {odd: odd}):
                    yield b"\n".join([json.dumps({**json.loads(first), key: value}).encode(), *rest]) + b"\n"


def check_content(path: Path, name: str, content: bytes) -> None:
    """Read a job directory with this content of a file; afterwards the file is as before."""
    file, read_it = path / name, FILES[name][1]
    before = {each: each.read_bytes() for each in (file, path / "trace.jsonl")}
    file.write_bytes(content)
    try:
        read_it(path)
    except RegenteError:
        pass
    finally:
        for each, kept in before.items():
            each.write_bytes(kept)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.timeout(60)
def test_any_content_of_a_file_is_read_or_refused(
    name: str, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_directory)
    whole = (run_directory / name).read_bytes()
    check_content(run_directory, name, whole)

    @KEPT
    @given(changed(whole))
    def check(content: bytes) -> None:
        check_content(run_directory, name, content)

    check()
    for content in odd_texts(name, whole):
        check_content(run_directory, name, content)
