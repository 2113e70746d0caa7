"""A run answers over HTTP, for this machine alone."""

import json
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import torch

from tests.conftest import Ended
from tests.inference.test_predict import QUICK, original

Run = Callable[..., Ended]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, body: Any, host: str = "127.0.0.1") -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        {"Content-Type": "application/json", "Host": host},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text


def wait_for(port: int, seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError("the server is not ready")


@pytest.mark.slow
def test_a_run_is_served_and_bad_input_refused(
    regente: Run, start: Callable[..., ForkServerProcess], project: Path
) -> None:
    assert regente("train", "digits_mlp", *QUICK).code == 0
    x, y = original(project, "test", 5)
    port = free_port()
    process = start("serve", "digits_mlp", "--port", str(port))
    wait_for(port)
    assert f"http://127.0.0.1:{port}/invocations" in (project / "out").read_text()
    code, answer = ask(port, {"inputs": x.tolist()})
    assert code == 200
    assert torch.allclose(torch.tensor(answer["predictions"]), y, atol=1e-5)
    assert len(ask(port, {"inputs": x.tolist() * 20})[1]["predictions"]) == 100
    request = Path(re.search(r"-d @(\S+)", (project / "out").read_text())[1])  # type: ignore[index]
    assert len(ask(port, json.loads(request.read_text()))[1]["predictions"]) == 2
    assert not list((project / "runs").glob("*/*/export"))
    assert ask(port, b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")[0] == 400
    assert ask(port, b" " * (33 * 2**20))[0] == 413
    assert ask(port, {"inputs": x.tolist()}, host="evil.example")[0] == 400
    for bad in (
        {"inputs": [[1, 2]]},
        {"inputs": "x"},
        b"nonsense",
        {"a": 1},
        {"inputs": (x.int() + 300).tolist()},
    ):
        code, answer = ask(port, bad)
        assert code == 400, bad
        assert answer["message"]
    ended = regente("serve", "digits_mlp", "--port", str(port))
    assert ended.code == 3
    assert ended.lines == [f"--port {port} is in use; try --port {port + 1}"]
    assert process.pid is not None
    signal_and_wait(process)
    assert not request.parent.exists()
    assert "Traceback" not in (project / "err").read_text()


def signal_and_wait(process: ForkServerProcess) -> None:
    import os

    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert not process.is_alive()


def test_an_address_that_others_reach_needs_a_word_more(regente: Run) -> None:
    ended = regente("serve", "latest", "--host", "0.0.0.0")
    assert ended.code == 2
    assert len(ended.lines) == 1 and "--open-to-network" in ended.err
    assert regente("serve", "latest", "--host", "0.0.0.0", "--open-to-network").code == 6
