"""What a run's model says of files that it has never seen. Imports all that is heavy."""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from regente.data.core.decoding import reason_of
from regente.data.core.file_inputs import Inputs
from regente.errors import DataError
from regente.inference.predictor import Opened, device_of, open_run
from regente.jobs.hardware import cores
from regente.jobs.runs import Run
from regente.training.performance import tune_process

CHUNK = 256  # files that are read before they are answered
BATCH = 64  # samples that are answered at a time
MOST = 100  # classes whose probabilities all are written; of more the best few
FEW = 5


@dataclass
class Predictions:
    """What was answered, a line for each sample, and what could not be read, with the reason."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def predict(run: Run, inputs: Sequence[str]) -> Predictions:
    """Ask a run's model about files, folders and, where it is a model of text, the words themselves.

    Raises:
        CheckpointError: when the run's weights are missing or damaged.
        ConfigError: when its data module can read no files.
    """
    opened, made = open_run(run), Predictions()
    tune_process()
    device = device_of(opened.config)
    opened.answers.to(device)
    things = list(_things(opened, inputs))
    with _progress() as line, ThreadPoolExecutor(cores()) as pool:
        task = line.add_task("predicting", total=len(things))
        for at in range(0, len(things), CHUNK):
            found: Inputs = []
            for thing, read in zip(
                things[at : at + CHUNK],
                pool.map(lambda thing: _read(opened, thing), things[at : at + CHUNK]),
                strict=True,
            ):
                if isinstance(read, str):
                    made.bad.append(f"{thing}: {read}")
                else:
                    found += read
                line.advance(task, 0.5)
            made.lines += _answer(opened, found, device)
            line.update(task, completed=min(at + CHUNK, len(things)))
    return made


def _things(opened: Opened, inputs: Iterable[str]) -> Iterator[Path | str]:
    """Files, those of a folder in the order of their paths, and words."""
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in opened.data.suffixes
                and not file.name.startswith(".")
                and file.is_file()
            )
            yield from files or [path]
        elif hasattr(opened.data, "word_ids") and not path.suffix and not path.exists():
            yield given
        else:
            yield path


def _read(opened: Opened, thing: Path | str) -> Inputs | str:
    """The samples, or why there are none."""
    try:
        if isinstance(thing, str):
            return _words(opened, thing)
        if thing.is_dir():
            raise DataError(f"no {', '.join(opened.data.suffixes)} in it")
        if not thing.exists():
            raise DataError("no such file")
        if not thing.is_file():  # a pipe or a device, which may never end
            raise DataError("no file")
        if thing.suffix.lower() not in opened.data.suffixes:
            raise DataError(f"the run reads {', '.join(opened.data.suffixes)}")
        if not (found := opened.data.samples_of(thing)):
            raise DataError("holds nothing to answer")
        return found  # type: ignore[no-any-return]
    except MemoryError:
        raise
    except Exception as error:  # PIL's plugins raise what they like
        reason = reason_of(error).removeprefix(f"data.path={thing}: ").removeprefix(f"{thing}: ")
        return (reason.splitlines() or [type(error).__name__])[0]


def _words(opened: Opened, text: str) -> Inputs:
    from regente.data.core.vocabulary import tokenise

    if not (words := tokenise(text)):
        raise DataError("no words in it")
    return [(text, opened.data.word_ids(words))]


@torch.inference_mode()
def _answer(opened: Opened, found: Inputs, device: torch.device) -> Iterator[dict[str, Any]]:
    for _, alike in groupby(found, key=lambda each: each[1].shape):
        same = list(alike)
        for at in range(0, len(same), BATCH):
            names, samples = zip(*same[at : at + BATCH], strict=True)
            answers: Tensor = opened.answers(torch.stack(samples).to(device)).cpu()
            for name, answer in zip(names, answers.numpy(), strict=True):
                yield _line(name, answer, opened.names)


def _line(name: str, answer: np.ndarray, classes: list[str] | None) -> dict[str, Any]:
    """An answer under names: of classes the best one, its probability, and those of all or of the best few."""
    if classes is None:
        values = answer.tolist()
        return {"input": name} | (
            {"prediction": values[0]}
            if len(values) == 1
            else {f"prediction_{number}": value for number, value in enumerate(values)}
        )
    order = np.argsort(-answer, kind="stable")
    line = {"input": name, "prediction": classes[order[0]], "probability": float(answer[order[0]])}
    if len(classes) <= MOST:
        return line | {f"p({each})": float(p) for each, p in zip(classes, answer, strict=True)}
    for rank, number in enumerate(order[1:FEW], start=2):
        line |= {f"prediction_{rank}": classes[number], f"probability_{rank}": float(answer[number])}
    return line


def write(lines: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the lines as CSV, Parquet or JSON, as the suffix of the file says; whole or not at all."""
    draft = file.with_name(f".{file.name}.part")
    try:
        if file.suffix == ".json":
            draft.write_text(json.dumps(list(lines), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            import pyarrow as pa
            from pyarrow import csv, parquet

            table = pa.Table.from_pylist(list(lines))
            (parquet.write_table if file.suffix == ".parquet" else csv.write_csv)(table, str(draft))
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(f"--out {file}: cannot be written ({error.strerror or error})") from error


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines for the eye: input, prediction, probability, and what else it may be."""
    if not lines:
        return
    width = max(len(line["input"]) for line in lines)
    for line in lines:
        if "probability" not in line:
            values = [f"{value:.6g}" for name, value in line.items() if name != "input"]
            yield f"{line['input']:<{width}}  {'  '.join(values)}"
            continue
        others = _others(line)
        yield f"{line['input']:<{width}}  {line['prediction']} {line['probability']:.1%}   {others}".rstrip()


def _others(line: dict[str, Any]) -> str:
    """The next two."""
    if "prediction_2" in line:
        pairs = [(line[f"prediction_{rank}"], line[f"probability_{rank}"]) for rank in (2, 3)]
    else:
        found = {key[2:-1]: value for key, value in line.items() if key.startswith("p(")}
        found.pop(line["prediction"], None)
        pairs = sorted(found.items(), key=lambda pair: -pair[1])[:2]
    return "  ".join(f"{name} {p:.1%}" for name, p in pairs)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
