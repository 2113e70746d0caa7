"""Where the trials of a search are stored: a journal file that survives kills, or any storage that Optuna has a URL for."""

import os
from pathlib import Path
from typing import Any

import filelock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from regente.config.redaction import Redactor, secret_values
from regente.errors import ConfigError, Problem
from regente.sweeps.optuna_internals import FileLock
from regente.tracking.journal import cut_torn_line

SCHEME = "journal:"  # before the path of a journal file


class _KernelLock(FileLock):
    """The kernel releases it when its process ends. After a kill, Optuna's own locks keep others waiting for 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.lock = filelock.FileLock(f"{path}.held")

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


class Journal(JournalFileBackend):
    """Optuna's journal file. A last line that a kill left incomplete is removed before anything is appended."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, _KernelLock(path)
        super().__init__(str(path), self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self.lock.lock:  # the backend takes it a second time, which it allows
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                incomplete = file.read(1) not in (b"", b"\n")
            if incomplete:
                cut_torn_line(self.path)
            super().append_logs(logs)


def open_storage(name: str) -> BaseStorage:
    """The storage at a URL; `journal:PATH` is a journal file.

    Raises:
        ConfigError: when it cannot be opened.
    """
    try:
        if name.startswith(SCHEME):
            return JournalStorage(Journal(Path(name.removeprefix(SCHEME))))
        return get_storage(name)
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, ValueError) as error:
        redact = Redactor(secret_values(name), {})
        line = redact.text((str(error).strip() or type(error).__name__).splitlines()[0])
        what = f"cannot be opened ({line}); give a URL, as sqlite:///study.db, or null for a file in the sweep's folder"
        raise ConfigError([Problem(f"hydra.sweeper.storage={redact.text(name)}", what)]) from error
