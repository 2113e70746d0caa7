"""`python -m regente.training.worker JOB_DIR` runs a frozen job, or resumes it from its newest state.

A job of one rank runs in this process, and so does a rank that an outer launcher has started. A job of several ranks
runs in processes of its own.
"""

import signal
import sys
from pathlib import Path

from regente.errors import RegenteError, Stopped
from regente.jobs.driver import follow_driver
from regente.jobs.fast_exit import FastExit
from regente.jobs.streams import ignore_write_errors
from regente.jobs.trust import run_handed_over
from regente.training.run import run


def main() -> None:
    """Run the job whose directory is the only argument, and end with its exit code."""
    leave = FastExit()
    ignore_write_errors()
    follow_driver()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m regente.training.worker JOB_DIR")
    leave(run_handed_over(Path(sys.argv[1]), run_to_exit_code))


def run_to_exit_code(path: Path, *, debug: bool = False) -> int:
    """Run the job in a directory and return its exit code; an error is a line on stderr."""
    try:
        return run(path, debug=debug).exit_code
    except RegenteError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    except Stopped as error:
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    main()
