"""`regente predict`: predictions of a run's model for files. Imports torch."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from regente.data.core.decoding import reason_of
from regente.data.core.file_inputs import Inputs
from regente.data.core.parallel import progress_bar
from regente.data.protocols import SupportsFiles, SupportsText
from regente.errors import ConfigError, DataError, Problem
from regente.inference.predictor import LoadedRun, load_run
from regente.jobs.hardware import cores
from regente.jobs.runs import Run, shown
from regente.training.performance import tune_process

CHUNK = 256  # files that are read at a time
BATCH = 64
MOST = 100  # up to so many classes all probabilities are written, of more only the TOP best
TOP = 5


@dataclass
class Predictions:
    """A row for each sample, and the unreadable inputs with the reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def predict(run: Run, inputs: Sequence[str]) -> Predictions:
    """Predict with a run's model on files, folders and, for a text model, on text.

    Raises:
        CheckpointError: when the run's weights are missing or damaged.
        ConfigError: when its data module cannot read files.
    """
    loaded, predictions = load_run(run), Predictions()
    if loaded.predictor.preprocessing is None or not isinstance(loaded.data, SupportsFiles):
        what = f"{type(loaded.data).__name__} has no samples_of(), preprocessing() and postprocessing(), so it reads no files; "
        what += "regente predict RUN without files predicts on its own data"
        raise ConfigError([Problem(f"run {shown(run.job.path)}", what)])
    tune_process()
    use_gpu = loaded.config["trainer"].get("accelerator") != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_gpu else "cpu")
    loaded.predictor.to(device)
    sources = list(_sources(loaded, inputs))
    with progress_bar(Console(stderr=True)) as bar, ThreadPoolExecutor(cores()) as pool:
        task = bar.add_task("predicting", total=len(sources))
        for at in range(0, len(sources), CHUNK):
            chunk, samples = sources[at : at + CHUNK], list[tuple[str, Tensor]]()
            for source, read in zip(chunk, pool.map(partial(_read, loaded), chunk), strict=True):
                if isinstance(read, str):
                    predictions.unreadable.append(f"{source}: {read}")
                else:
                    samples += read
                bar.advance(task, 0.5)
            predictions.rows += _predict(loaded, samples, device)
            bar.update(task, completed=at + len(chunk))
    return predictions


def _sources(loaded: LoadedRun, inputs: Iterable[str]) -> Iterator[Path | str]:
    """Files, those of a folder in the order of their paths, and texts."""
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in loaded.data.suffixes
                and not file.name.startswith(".")
                and file.is_file()
            )
            yield from files or [path]
        elif isinstance(loaded.data, SupportsText) and not path.suffix and not path.exists():
            yield given
        else:
            yield path


def _read(loaded: LoadedRun, source: Path | str) -> Inputs | str:
    """The samples of a file or text, or the reason why there are none."""
    try:
        if isinstance(source, str):
            return _read_text(loaded, source)
        if source.is_dir():
            raise DataError(f"no {', '.join(loaded.data.suffixes)} in it")
        if not source.exists():
            raise DataError("no such file")
        if not source.is_file():  # a pipe or a device, which may never end
            raise DataError("not a regular file")
        if source.suffix.lower() not in loaded.data.suffixes:
            raise DataError(f"unknown file type; the run reads {', '.join(loaded.data.suffixes)}")
        if not (found := loaded.data.samples_of(source)):
            raise DataError("holds no samples")
        return found  # type: ignore[no-any-return]
    except MemoryError:
        raise
    except Exception as error:  # PIL's plugins raise many kinds of errors
        reason = reason_of(error).removeprefix(f"data.path={source}: ").removeprefix(f"{source}: ")
        return (reason.splitlines() or [type(error).__name__])[0]


def _read_text(loaded: LoadedRun, text: str) -> Inputs:
    from regente.data.core.vocabulary import tokenise

    if not (words := tokenise(text)):
        raise DataError("no words in it")
    return [(text, loaded.data.word_ids(words))]


@torch.inference_mode()
def _predict(loaded: LoadedRun, samples: Inputs, device: torch.device) -> Iterator[dict[str, Any]]:
    for _, group in groupby(samples, key=lambda sample: sample[1].shape):
        same_shape = list(group)
        for at in range(0, len(same_shape), BATCH):
            names, xs = zip(*same_shape[at : at + BATCH], strict=True)
            outputs: Tensor = loaded.predictor(torch.stack(xs).to(device)).cpu()
            for name, output in zip(names, outputs.numpy(), strict=True):
                yield _row(name, output, loaded.class_names)


def _row(name: str, output: np.ndarray, classes: list[str] | None) -> dict[str, Any]:
    """A prediction as a row: the class, its probability and those of all or the best classes; or the values."""
    if classes is None:
        values = output.tolist()
        return {"input": name} | (
            {"prediction": values[0]}
            if len(values) == 1
            else {f"prediction_{number}": value for number, value in enumerate(values)}
        )
    order = np.argsort(-output, kind="stable")
    row = {"input": name, "prediction": classes[order[0]], "probability": float(output[order[0]])}
    if len(classes) <= MOST:
        return row | {f"p({each})": float(p) for each, p in zip(classes, output, strict=True)}
    for rank, number in enumerate(order[1:TOP], start=2):
        row |= {f"prediction_{rank}": classes[number], f"probability_{rank}": float(output[number])}
    return row


def rows_of(outputs: Any, first: int) -> list[dict[str, Any]]:
    """A row for each sample of what a `predict_step` returned for a batch: a tensor or list, or a dict or tuple of them.

    Values of the batch as a whole are left out where there are others; alone they make one row. `first`: the number of
    its first sample.
    """
    if isinstance(outputs, tuple):
        outputs = {f"prediction_{number}": each for number, each in enumerate(outputs)}
    named = outputs if isinstance(outputs, Mapping) else {"prediction": outputs}
    plain = {
        str(name): values.tolist() if isinstance(values, Tensor | np.ndarray | np.generic) else values
        for name, values in named.items()
    }
    columns = {name: values for name, values in plain.items() if isinstance(values, list)}
    columns = columns or {
        name: [value] for name, value in plain.items() if isinstance(value, int | float | str)
    }
    length = max(map(len, columns.values()), default=0)
    rows: list[dict[str, Any]] = [{"input": str(first + number)} for number in range(length)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=False):
            if isinstance(value, list) and all(isinstance(each, int | float) for each in value):
                one = len(value) == 1
                row |= {name if one else f"{name}_{number}": each for number, each in enumerate(value)}
            else:
                row[name] = value
    return rows


def write(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the rows as CSV, Parquet or JSON according to the suffix; the file appears whole or not at all."""
    draft = file.with_name(f".{file.name}.part")
    try:
        if file.suffix == ".json":
            draft.write_text(json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            import pyarrow as pa
            from pyarrow import csv, parquet

            table = pa.Table.from_pylist(list(rows))
            (parquet.write_table if file.suffix == ".parquet" else csv.write_csv)(table, str(draft))
        draft.replace(file)
    except (ValueError, NotImplementedError) as error:  # pyarrow's, for a list in a CSV file
        draft.unlink(missing_ok=True)
        raise DataError(
            f"--out {file}: a prediction is no single value; use FILE.json or FILE.parquet"
        ) from error
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(f"--out {file}: cannot be written ({error.strerror or error})") from error


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows as lines of text: the input, and the three best classes with probabilities, or the values."""
    width = max((len(row["input"]) for row in rows), default=0)
    for row in rows:
        if "probability" in row:
            best, *others = (f"{name} {p:.1%}" for name, p in _best(row))
            text = f"{best}   {'  '.join(others)}".rstrip()
        else:
            values = [value for name, value in row.items() if name != "input"]
            text = "  ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)
        yield f"{row['input']:<{width}}  {text}"


def _best(row: dict[str, Any]) -> list[tuple[str, float]]:
    """The three best classes with their probabilities."""
    first = (row["prediction"], row["probability"])
    if "prediction_2" in row:
        return [first, *((row[f"prediction_{rank}"], row[f"probability_{rank}"]) for rank in (2, 3))]
    others = [(key[2:-1], p) for key, p in row.items() if key.startswith("p(") and key[2:-1] != first[0]]
    return [first, *sorted(others, key=lambda pair: -pair[1])[:2]]
