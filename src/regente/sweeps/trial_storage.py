"""Where the trials of a search are kept: a journal file that survives kills, or any storage that Optuna has a URL for."""

import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from sqlalchemy.exc import SQLAlchemyError

from regente.config.redaction import Redactor, secret_values
from regente.errors import ConfigError, Problem
from regente.tracking.journal import cut_torn_line

SCHEME = "journal:"  # before the path of a journal file


class _Lock(BaseJournalFileLock):
    """A lock of the kernel's, which goes with the process that held it; Optuna's own keep others waiting for 30 s."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(f"{path}.held")

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


class Journal(JournalFileBackend):
    """Optuna's journal file, with a last line that a kill has torn cut off before anything is appended to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, _Lock(path)
        super().__init__(str(path), self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self.lock.lock:  # which the backend may take once more
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                torn = file.read(1) not in (b"", b"\n")
            if torn:
                cut_torn_line(self.path)
            super().append_logs(logs)


def open_storage(name: str) -> BaseStorage:
    """The storage of a URL; `journal:PATH` is a journal file.

    Raises:
        ConfigError: when there is none that answers.
    """
    try:
        if name.startswith(SCHEME):
            return JournalStorage(Journal(Path(name.removeprefix(SCHEME))))
        return get_storage(name)
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, ValueError) as error:
        redact = Redactor(secret_values(name), {})
        where, line = (
            redact.text(name),
            redact.text((str(error).strip() or type(error).__name__).splitlines()[0]),
        )
        what = f"cannot be opened ({line}); give a URL as sqlite:///study.db, or null for a file in the sweep's folder"
        raise ConfigError([Problem(f"hydra.sweeper.storage={where}", what)]) from error
