"""The command line handed to Hydra itself, for its plugins and for `--info`."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from regente.config.compose import register
from regente.config.composition_errors import explain
from regente.config.overrides import lenient
from regente.errors import ConfigError, RegenteError


class _Through(BaseException):
    """Carries an error through Hydra, which would print a message of its own for an ordinary exception."""

    def __init__(self, error: RegenteError) -> None:
        self.error = error


def run_hydra(
    experiment: str, overrides: Sequence[str], flags: Sequence[str], task: Callable[[Any], Any]
) -> None:
    """Hand the command line to Hydra itself, for its plugins and for `--info`."""
    register()
    GlobalHydra.instance().clear()

    def guarded(node: Any) -> Any:
        try:
            return task(node)
        except RegenteError as error:
            raise _Through(error) from error

    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *flags, *lenient(overrides)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come through to us instead of being printed
    try:
        hydra.main(config_path=None, config_name=experiment, version_base="1.3")(guarded)()
    except _Through as through:
        raise through.error from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([explain(error, list(overrides))[0]]) from error
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
