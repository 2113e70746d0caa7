"""The driver of a process: the one that started it and waits for it. Without its driver a job saves and ends."""

import json
import os
import signal
import threading
import time
from dataclasses import asdict

from regente.jobs.process_identity import ProcessIdentity, process_identity

DRIVER = "REGENTE_DRIVER"  # in the environment: the identity of the driver, as JSON
PATIENCE = 120.0  # seconds to save and end once the driver is gone


def driver_environment() -> dict[str, str]:
    """The variable that makes this process the driver of those it starts."""
    return {DRIVER: json.dumps(asdict(process_identity(os.getpid())))}


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
