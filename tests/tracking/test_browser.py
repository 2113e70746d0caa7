"""What a person sees: MLflow's own UI, opened by our links in a headless Chromium."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from regente.tracking.description import TAG, merged
from regente.tracking.mlflow_internals import compare_link, run_link, view_link
from regente.tracking.view import swept_keys, write_view

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    # MLflow 3.17's own use of SQLAlchemy 2.1, November 2026
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

CHROMEDRIVER = shutil.which("chromedriver")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--window-size=1800,1000",
]

# MLflow's table draws the name of a run and its values in two halves; rows are joined by their id
ROWS = """
const cells = {};
for (const cell of document.querySelectorAll('.ag-row [role=gridcell]')) {
    const row = cell.closest('.ag-row').getAttribute('row-index');
    (cells[row] ??= {})[cell.getAttribute('col-id')] = cell.innerText.trim().split('\\n').pop();
}
return Object.keys(cells).sort((a, b) => a - b).map(row => cells[row]);
"""
HEADERS = """
return [...document.querySelectorAll('.ag-header-cell')]
    .sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x)
    .map(header => header.getAttribute('col-id'))
    .filter(id => /^(metrics|params)/.test(id));
"""
BEST = "metrics.`best/val/acc`"
COLUMNS = [BEST, "metrics.`val/acc`", "metrics.`val/loss`", "params.`model.width`", "params.`optimizer.lr`"]
UNFOLDERS = "return document.querySelectorAll('.ag-row [col-id*=\"Run Name\"] button').length"
TINTED = "return [...document.querySelectorAll('tr.diff-row th')].map(header => header.innerText.trim())"
COMPARED = "return [...document.querySelectorAll('tr th')].map(header => header.innerText.trim())"
CELLS = """
return [...document.querySelectorAll('tr')].map(row => [...row.querySelectorAll('th, td')].map(cell => cell.innerText.trim()))
    .filter(cells => cells.length == 2);
"""
CHARTS = """
return [...document.querySelectorAll('[data-testid=experiment-view-compare-runs-card]')]
    .map(card => card.innerText.split('\\n')[0]);
"""


@dataclass(frozen=True)
class Sweep:
    """A sweep of twelve runs in an experiment, behind a server."""

    base: str
    experiment: str
    parent: str
    children: list[str]  # best first
    best: str  # the name of the best


class Browser:
    """A Chromium, by the WebDriver protocol."""

    def __init__(self, driver: str, session: str, shots: Path) -> None:
        self.url, self.shots = f"{driver}/session/{session}", shots

    def open(self, link: str) -> None:
        """Load a page as a browser does that has never been there."""
        call(f"{self.url}/url", {"url": link.partition("#")[0] + "version"})
        self.ask("localStorage.clear(); sessionStorage.clear()")
        call(f"{self.url}/url", {"url": link})

    def ask(self, script: str) -> Any:
        return call(f"{self.url}/execute/sync", {"script": script, "args": []})

    def wait(self, script: str, enough: Callable[[Any], bool], seconds: float = 60) -> Any:
        """The script's answer, as soon as it is enough, or else the last one."""
        end = time.monotonic() + seconds
        while not enough(answer := self.ask(script)) and time.monotonic() < end:
            time.sleep(0.3)
        return answer

    def shoot(self, name: str) -> None:
        (self.shots / f"{name}.png").write_bytes(base64.b64decode(call(f"{self.url}/screenshot")))


def call(url: str, body: dict[str, Any] | None = None, timeout: float = 60) -> Any:
    """One WebDriver command."""
    request = urllib.request.Request(
        url, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)["value"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started(command: list[str], ready: str, log: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A server that answers at the address `ready`, within two minutes."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(ready, timeout=5).close()
            return process
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    stop(process)
    pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process that we started, gently first."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMEDRIVER is None or CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    folder = tmp_path_factory.mktemp("browser")
    home = {**os.environ, "HOME": str(folder)}
    address = f"http://127.0.0.1:{(port := free_port())}"
    driver = started([CHROMEDRIVER, f"--port={port}"], f"{address}/status", folder / "driver.log", home)
    try:
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        session = call(f"{address}/session", wanted)["sessionId"]
        yield Browser(address, session, folder)
        urllib.request.urlopen(
            urllib.request.Request(f"{address}/session/{session}", method="DELETE")
        ).close()
    finally:
        stop(driver)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Sweep]:
    """Twelve runs under a parent, and one run that has nothing to do with them."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("sweep")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("digits_cnn", artifact_location=(folder / "mlartifacts").as_uri())
    parent = client.create_run(experiment, run_name="sweep of 12").info.run_id
    client.create_run(experiment, run_name="alone")
    scores: dict[str, tuple[float, str]] = {}
    params = []
    for lr, width in product(("0.1", "0.01", "0.003", "0.0001"), ("32", "64", "128")):
        name = f"lr={lr} width={width}"
        tags = {"mlflow.parentRunId": parent}
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        params.append({"optimizer.lr": lr, "model.width": width, "seed": "0", "trainer.max_epochs": "3"})
        best = {"0.1": 0.2, "0.01": 0.9, "0.003": 0.93, "0.0001": 0.5}[lr] + int(width) / 10_000
        metrics = [Metric("best/val/acc", best, 0, 0)]
        for epoch in range(3):
            metrics.append(Metric("val/acc", best * (epoch + 1) / 3, epoch, epoch * 100))
            metrics.append(Metric("val/loss", 1 / (epoch + best), epoch, epoch * 100))
        client.log_batch(run, metrics, [Param(key, value) for key, value in params[-1].items()])
        client.set_terminated(run)
        scores[run] = (best, name)
    client.set_terminated(parent)
    base = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", uri]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = started(command, f"{base}/health", folder / "server.log", env)
    children = sorted(scores, key=lambda run: -scores[run][0])
    try:
        rows = {(lr,) for lr in ("0.1", "0.01", "0.003", "0.0001")}
        groups = [("param", "optimizer.lr")], rows
        for key, owner, store, by in (
            ("sweep", parent, client, None), ("all", None, MlflowClient(base), None), ("groups", parent, client, groups),
        ):  # fmt: skip
            assert write_view(
                store, experiment, key=key, name=f"Best of {key}", params=swept_keys(params),
                metrics=["best/val/acc", "val/acc", "val/loss"], ascending=False, parent=owner, groups=by,
                curves={"val/acc": False, "val/loss": True},
            )  # fmt: skip
        page = run_link(experiment, children[0])
        table = f"| lr | mean |\n| --- | ---: |\n| 0.003 | [0.9428]({page}) |\n\n- the verdict"
        client.set_tag(parent, TAG, merged(table, ""))
        yield Sweep(base, experiment, parent, children, scores[children[0]][1])
    finally:
        stop(server)


def test_mlflows_own_table_hides_the_runs_of_a_sweep(browser: Browser, sweep: Sweep) -> None:
    """The reason for the view, and the proof that the tests below see what they look for."""
    browser.open(f"{sweep.base}/#/experiments/{sweep.experiment}/runs?workflowType=machine_learning")
    rows = browser.wait(ROWS, lambda rows: len(rows) >= 2)
    unfolders = browser.wait(UNFOLDERS, bool)
    browser.shoot("plain")
    assert len(rows) == 2
    assert unfolders == 1


def test_the_table_opens_on_the_runs_of_the_sweep_flat_and_best_first(browser: Browser, sweep: Sweep) -> None:
    browser.open(view_link(sweep.base, sweep.experiment, "sweep"))
    rows = browser.wait(ROWS, lambda rows: len(rows) >= 12 and all(BEST in row for row in rows))
    headers, unfolders = browser.wait(HEADERS, COLUMNS.__eq__, 10), browser.ask(UNFOLDERS)
    browser.shoot("table")
    assert len(rows) == 12
    assert unfolders == 0
    assert sweep.best in rows[0]["attributes.`Run Name`"]
    scores = [float(row[BEST]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert headers == COLUMNS


def test_the_runs_of_a_configuration_are_one_folded_row_of_means(browser: Browser, sweep: Sweep) -> None:
    browser.open(view_link(sweep.base, sweep.experiment, "groups"))
    rows = browser.wait(ROWS, lambda rows: len(rows) >= 4 and all(BEST in row for row in rows))
    browser.shoot("groups")
    assert len(rows) == 4
    assert [round(float(row[BEST].split()[0]), 4) for row in rows] == [0.9375, 0.9075, 0.5075, 0.2075]


def test_the_page_of_a_sweep_opens_with_its_table_and_links(browser: Browser, sweep: Sweep) -> None:
    link = run_link(sweep.experiment, sweep.parent)
    browser.open(f"{sweep.base}/{link}")
    cells = browser.wait(CELLS, bool)
    browser.shoot("parent")
    assert cells == [["lr", "mean"], ["0.003", "0.9428"]]
    links = browser.ask("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert run_link(sweep.experiment, sweep.children[0]) in links


def test_without_a_sweep_all_runs_are_rows_and_those_without_the_metric_the_last(
    browser: Browser, sweep: Sweep
) -> None:
    browser.open(view_link(sweep.base, sweep.experiment, "all"))
    rows = browser.wait(ROWS, lambda rows: len(rows) >= 14 and all(BEST in row for row in rows))
    unfolders = browser.ask(UNFOLDERS)
    browser.shoot("all")
    names = [row["attributes.`Run Name`"] for row in rows]
    assert len(names) == 14
    assert unfolders == 0
    assert sweep.best in names[0]
    assert sorted(names[-2:]) == ["alone", "sweep of 12"]


def test_the_chart_page_draws_the_curves_of_the_children(browser: Browser, sweep: Sweep) -> None:
    browser.open(view_link(sweep.base, sweep.experiment, "sweep", chart=True))
    charts = browser.wait(CHARTS, lambda charts: len(charts) >= 3)
    browser.shoot("charts")
    assert charts[:3] == ["val/acc", "val/loss", "Parallel Coordinates"]  # MLflow draws its own below


def test_the_compare_page_marks_exactly_the_swept_params(browser: Browser, sweep: Sweep) -> None:
    browser.open(compare_link(sweep.base, sweep.experiment, sweep.children[:10]))
    tinted = browser.wait(TINTED, bool)
    compared = browser.ask(COMPARED)
    browser.shoot("compare")
    assert sorted(tinted) == ["model.width", "optimizer.lr"]
    assert {"seed", "trainer.max_epochs"} <= set(compared)


@pytest.mark.timeout(900)
def test_regente_ui_prints_the_links_to_a_real_sweep(browser: Browser, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("regente"))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [
        "optimizer.lr=1e-1,1e-2,1e-3,1e-4",
        "model.dropout=0,0.1,0.2",
        "trainer=debug",
        "tracking.log_model=none",
    ]
    subprocess.run(
        [program, "train", "digits_mlp", "-m", *words], cwd=tmp_path, env=env, check=True, timeout=400
    )
    port = free_port()
    ui = [program, "ui", "--port", str(port)]
    with (tmp_path / "ui.log").open("wb") as out:
        server = subprocess.Popen(ui, cwd=tmp_path, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.3)
        links = dict(
            line.split(": http")
            for line in (tmp_path / "ui.log").read_text().splitlines()
            if ": http" in line
        )
        links = {what: f"http{link}" for what, link in links.items()}
        browser.open(links["the latest sweep, best first"])
        rows = browser.wait(ROWS, lambda rows: len(rows) >= 12 and all(BEST in row for row in rows))
        headers = browser.wait(HEADERS, lambda headers: len(headers) > 3, 10)
        browser.shoot("real_table")
        assert len(rows) == 12
        assert [float(row[BEST]) for row in rows] == sorted((float(row[BEST]) for row in rows), reverse=True)
        assert {BEST, "params.`optimizer.lr`", "params.`model.dropout`"} <= set(headers)
        assert {header for header in headers if header.startswith("params")} == {
            "params.`optimizer.lr`",
            "params.`model.dropout`",
        }
        browser.open(links["its ten best, side by side"])
        tinted = browser.wait(TINTED, bool)
        browser.shoot("real_compare")
        params = {
            name for name in tinted if "." in name and not name.startswith("regente.")
        }  # no metrics, tags
        assert params == {"model.dropout", "optimizer.lr"}
    finally:
        stop(server)
