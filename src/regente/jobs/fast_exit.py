"""The end of a process without the two seconds that Python takes to clean up torch and Lightning."""

import atexit
import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn


class FastExit:
    """Make one before anything else, and call it with the exit code at the end.

    Functions registered with atexit in between still run. The interpreter is not finalized after them.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self._exit)  # atexit calls the first one last

    def __call__(self, code: int) -> NoReturn:
        self.code = code
        sys.exit(code)

    def _exit(self) -> None:
        if self.code is None:
            return
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or not there
                stream.flush()
        os._exit(self.code)
