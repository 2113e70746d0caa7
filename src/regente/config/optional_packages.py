"""Packages that only some commands need."""

from importlib.util import find_spec

from regente.errors import MachineError


def require(package: str, wanted: str) -> None:
    """Raise MachineError unless the package is installed; `wanted` is what asks for it."""
    if find_spec(package) is None:
        raise MachineError(f"{wanted}: needs {package}, which is not installed; pip install {package}")
