"""`python -m regente.training.worker JOB_DIR` runs a frozen job, or resumes it, in this process."""

import sys
from pathlib import Path

from regente.errors import RegenteError, Stopped
from regente.jobs.driver import follow_driver
from regente.jobs.fast_exit import FastExit
from regente.jobs.streams import ignore_write_errors
from regente.training.run import run


def main() -> None:
    """Run the job whose directory is the only argument, and end with its exit code."""
    leave = FastExit()
    ignore_write_errors()
    follow_driver()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m regente.training.worker JOB_DIR")
    try:
        leave(run(Path(sys.argv[1])).exit_code)
    except RegenteError as error:
        print(error, file=sys.stderr)  # noqa: T201
        leave(error.exit_code)
    except Stopped as error:
        leave(error.exit_code)


if __name__ == "__main__":
    main()
