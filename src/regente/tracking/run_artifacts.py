"""What a run logs beyond its metrics: code, packages, hardware, data, figures, weights, model, description."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from regente.config.interpolation import resolve
from regente.config.redaction import Redactor
from regente.jobs.found_files import is_plain
from regente.jobs.job import PROVENANCE, QUEUE, Job, read_json, write_json
from regente.jobs.result import read_result, split_of
from regente.jobs.runs import best_weights
from regente.tracking import provenance
from regente.tracking.journal import read

PATCH = "changes.patch"  # in the job directory: uncommitted changes of the code

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


def start_tags(job: Job, *, own: bool) -> dict[str, str]:
    """Code and hardware in short; of a job of somebody else, what it holds of them."""
    if own:
        keep_provenance(job)
    code, hardware = _code(job), _hardware(job)
    tags = {
        "regente.fingerprint": provenance.fingerprint(hardware),
        "regente.host_cpu": str(hardware.get("cpu", "")),
        "regente.dirty": str(bool(code.get("patch"))).lower() if code.get("commit") else "",
        "mlflow.source.git.commit": str(code.get("commit") or ""),
        "mlflow.source.git.branch": str(code.get("branch") or ""),
        "mlflow.source.git.repoURL": str(code.get("remote") or ""),
    }
    return {key: value for key, value in tags.items() if value}


def log_start(client: "MlflowClient", run_id: str, job: Job) -> None:
    """Log config, code, packages and hardware at the start of the run."""
    for name, place in {"config.yaml": "config", "job.json": "config", PROVENANCE: "environment"}.items():
        if is_plain(job.path / name, job.path):
            client.log_artifact(run_id, str(job.path / name), place)
    packages = read_json(job.path / PROVENANCE).get("packages", [])
    client.log_text(run_id, "\n".join(packages) + "\n", "environment/packages.txt")
    client.log_dict(run_id, _hardware(job), "environment/hardware.json")
    if is_plain(job.path / PATCH, job.path):
        client.log_artifact(run_id, str(job.path / PATCH), "code")


def _code(job: Job) -> dict[str, Any]:
    return read_json(job.path / PROVENANCE).get("code", {})  # type: ignore[no-any-return]


def _hardware(job: Job) -> dict[str, Any]:
    return {**read_json(job.path / PROVENANCE).get("hardware", {}), **read_json(job.path / "torch.json")}


def keep_provenance(job: Job) -> None:
    """Write code, packages and hardware of the first attempt to the job directory, once."""
    if (job.path / PROVENANCE).is_file():
        return
    code = provenance.code(Path(job.project), Redactor().text)
    if code.patch:
        (job.path / PATCH).write_text(code.patch, encoding="utf-8")
    packages = provenance.packages().splitlines()
    facts = {"code": code.facts(), "hardware": provenance.hardware(), "packages": packages}
    write_json(job.path / PROVENANCE, facts)


def log_dataset(client: "MlflowClient", run_id: str, line: dict[str, Any]) -> None:
    """Log the data as a dataset input of the run: name, source, digest and sizes of the splits."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = CodeDatasetSource({"source": line["source"]}).to_json()
    data = Dataset(line["name"], line["digest"], "code", source)
    tag = InputTag("mlflow.data.context", ", ".join(f"{k} {v}" for k, v in line["splits"].items()))
    client.log_inputs(run_id, [DatasetInput(data, [tag])])


def best_values(result: dict[str, Any]) -> dict[str, float]:
    """The metrics of the best epoch as metrics of the whole run, with its speed and memory."""
    metrics = result["metrics"].items()
    best = {f"best/{name}": value for name, value in metrics if split_of(name)[0] != "test"}
    if result["best_epoch"] is not None:
        best["best/epoch"] = result["best_epoch"]
    return best | {"throughput": result["samples_per_second"], "peak_megabytes": result["peak_megabytes"]}


def log_outputs(client: "MlflowClient", run_id: str, job: Job, *, own: bool) -> None:
    """Log figures and, if the config asks for it, the model. If one cannot be made, a tag gives the reason."""
    log_figures(client, run_id, job)
    best = best_weights(job, read_result(job.path))
    if best and logs_model(job, resolve(job.config, ["tracking"])["tracking"]["log_model"]):
        log_model(client, run_id, job, best, own=own)


def logs_model(job: Job, policy: str) -> bool:
    """Whether a run logs its model at its end; a sweep does so for its best job."""
    return policy == "all" or (policy == "best" and not (job.path.parent / QUEUE).is_file())


def log_model(client: "MlflowClient", run_id: str, job: Job, checkpoint: Path, *, own: bool) -> None:
    """Log the model with the weights of a checkpoint; a tag says why if that cannot be."""
    from regente.tracking.logged_model import EXPORTED, export_program, is_logged, log_program

    try:
        if is_logged(client, run_id, checkpoint):
            shutil.rmtree(job.path / EXPORTED, ignore_errors=True)
            return
        # of a process that was killed, of the best job of a sweep, or of a job of unknown origin
        if not own or not (job.path / EXPORTED).is_dir():
            export_program(job, checkpoint, own=own)
        failure = log_program(client, run_id, job, checkpoint)
    except Exception as error:
        failure = f"not logged: {type(error).__name__}: {str(error)[:500]}"
    if failure:
        client.set_tag(run_id, "regente.model", failure)


def log_checkpoints(client: "MlflowClient", run: "Run", job: Job, result: dict[str, Any]) -> None:
    """Log the checkpoints that the config asks for; into a local store as hard links instead of copies."""
    policy = resolve(job.config, ["tracking"])["tracking"]["checkpoints"]
    kept = sorted(job.checkpoints.glob("*.ckpt"))
    wanted = {
        "none": [],
        "best": [best] if (best := best_weights(job, result)) else [],
        "last": [file for file in kept if file.name == "last.ckpt"],
        "top_k": [file for file in kept if file.name != "last.ckpt"],
    }[policy]
    local = local_path(run.info.artifact_uri)
    # a found journal could name any file of this machine
    wanted = [file for file in wanted if file.exists() and file.resolve().is_relative_to(job.path)]
    for file in wanted:
        whole = file.resolve()  # last.ckpt is a link
        if local is None:
            client.log_artifact(run.info.run_id, str(whole), "checkpoints")
            continue
        target = local / "checkpoints" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(whole, target)
        except OSError:  # another file system
            shutil.copy2(whole, target)
    if local is not None and (local / "checkpoints").is_dir():
        for file in (local / "checkpoints").glob("*.ckpt"):
            if file.name not in {each.name for each in wanted}:
                file.unlink()


def local_path(uri: str) -> Path | None:
    """The folder of an artifact URI; None if it is not on this machine."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


def log_figures(client: "MlflowClient", run_id: str, job: Job) -> None:
    """Log learning curves, and figures of the test and validation samples.

    If they cannot be drawn, a tag gives the reason: another try would fail too.
    """
    from regente.tracking import figures

    lines, _ = read(job.journal, 0)
    made: dict[str, str | None] = {}
    try:
        made["learning_curves"] = figures.learning_curves(lines)
        for prefix, split in (("", "test"), ("validation_", "val")):
            if (file := job.path / f"{split}.npz").is_file():
                made |= {prefix + name: figure for name, figure in figures.outcomes(file).items()}
        if (file := job.path / "learning_rates.json").is_file():
            made["learning_rates"] = figures.learning_rates(read_json(file))
    except Exception as error:  # numpy's, of a damaged file
        client.set_tag(
            run_id, "regente.figures", f"not all drawn: {type(error).__name__}: {str(error)[:500]}"
        )
    for name, figure in made.items():
        if figure is not None:
            client.log_text(run_id, figure, f"figures/{name}.svg")
