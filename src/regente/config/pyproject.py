"""The lists of names in the table [tool.regente] of a project's pyproject.toml."""

import tomllib
from functools import cache
from pathlib import Path

from regente.errors import ConfigError, Problem


def listed(key: str, project: Path) -> tuple[str, ...]:
    """The names of a key, such as `trusted`; a job directory has no say.

    Raises:
        ConfigError: when the file cannot be read, or the key is no list of names.
    """
    file = project / "pyproject.toml"
    if not file.is_file() or (project / "job.json").exists():
        return ()
    return _names(key, file, file.stat().st_mtime_ns)


@cache
def _names(key: str, file: Path, changed: int) -> tuple[str, ...]:
    try:
        names = (
            tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("regente", {}).get(key, [])
        )
    except (ValueError, AttributeError) as error:
        raise ConfigError([Problem(str(file), f"cannot be read: {error}")]) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError([Problem(f"{file}: tool.regente.{key}", 'needs a list of names: ["package"]')])
    return tuple(names)
