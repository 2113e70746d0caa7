"""The driver of a process: the one that started it and waits for it. Without its driver a job saves and ends."""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from regente.jobs.process_identity import ProcessIdentity, process_identity

DRIVER = "REGENTE_DRIVER"  # in the environment: the identity of the driver, as JSON
PATIENCE = 120.0  # seconds to save and end once the driver is gone


def job_environment(environ: Mapping[str, str], project: Path) -> dict[str, str]:
    """The environment of a job's process: this process is its driver, and it imports the user's modules from `project`."""
    path = os.pathsep.join(filter(None, [environ.get("PYTHONPATH"), str(project)]))
    return {**environ, DRIVER: json.dumps(asdict(process_identity(os.getpid()))), "PYTHONPATH": path}


def follow_driver() -> None:
    """End with the driver, also when it is killed and cannot send a signal. Does nothing without a driver."""
    if DRIVER not in os.environ:
        return
    driver = ProcessIdentity(**json.loads(os.environ[DRIVER]))

    def watch() -> None:
        while driver.alive() is not False:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)  # it hangs and handles no signal

    threading.Thread(target=watch, daemon=True).start()
