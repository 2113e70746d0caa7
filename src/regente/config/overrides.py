"""The words of a command line that set, choose, add and remove."""

import re
from collections.abc import Sequence

from regente.config.discovery import groups
from regente.errors import Problem

UNQUOTED = re.compile(
    r"[\w\s.,:/+\-\\$%*@?|(){}\[\]'\"]*", re.ASCII
)  # characters that Hydra reads outside of quotes
BRACKETS = re.compile(r"[(){}\[\]'\"\\$]")  # a list, a mapping, a function, a reference, an escape


def key_of(override: str) -> str:
    """What an override sets, chooses or removes."""
    return override.lstrip("+~").split("=", 1)[0]


def quoted(override: str) -> str:
    """The override with quotes around what Hydra reads only in quotes: `data.root=~/a`, `init_from=step=20.ckpt`, `x=Größe`."""
    key, _, value = override.partition("=")
    if UNQUOTED.fullmatch(value) or BRACKETS.search(value) or value != value.strip():
        return override
    pieces = [each if UNQUOTED.fullmatch(each) else f"'{each}'" for each in value.split(",")]
    return f"{key}={','.join(pieces)}"


def lenient(overrides: Sequence[str]) -> list[str]:
    """`key=value` as `++key=value`: `check` decides by the signature of the class whether it takes the key.

    The choice of a group stays as it is. A value that Hydra cannot read is quoted.
    """
    chosen = groups()

    def mark(override: str) -> str:
        key = re.match(r"([A-Za-z_][\w.]*)=({)?", override)
        if key is None or (key[1] in chosen and not key[2]) or key[1].startswith("hydra."):
            return override
        return f"++{override}"

    return [mark(quoted(override)) for override in overrides]


def bad_override(override: str, text: str) -> Problem:
    """What is wrong with an override that Hydra's grammar does not accept; `text` is the message of its parser."""
    raw = override.removeprefix("++")
    if "=" not in raw:
        what = "not a setting; write key=value, without blanks around the ="
    elif raw.startswith("seed=until("):
        what = "adds seeds in a sweep; add -m"
    elif raw.endswith("=") or "= " in raw:
        what = "no blanks around the =, and quotes around a value with blanks: 'key=\"a b\"'"
    else:
        said = [line.strip() for line in text.splitlines() if line.strip() and "hydra.cc" not in line]
        detail = next(
            (line for line in said if re.match(r"(mismatched|extraneous|no viable|missing|token)", line)), ""
        )
        detail = (
            f"cannot be read ({detail})" if detail else "cannot be read; is a bracket or a quote left open?"
        )
        what = f"{detail}; quote it for the shell and for Hydra: 'key=\"a b\"'"
    return Problem(raw, what)
