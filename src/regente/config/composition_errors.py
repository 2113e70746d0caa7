"""What an error of composition means for the user who wrote the overrides."""

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from yaml import YAMLError

from regente.config.discovery import groups, options, suggest
from regente.config.overrides import bad_override, key_of
from regente.errors import Problem


def explain(error: Exception, overrides: list[str]) -> tuple[Problem, str | None]:
    """What a composition error means, and the override to blame for it, if one is."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not find '(\S+?)'", text)):
        return _missing_option(found[1], overrides)
    if isinstance(error, OverrideParseException):
        # Hydra was given the word with ++, see `lenient`
        return bad_override(error.override, text), next(
            (o for o in overrides if o in (error.override, error.override.removeprefix("++"))), None
        )
    if isinstance(error, YAMLError) or isinstance(error.__cause__, YAMLError):
        return _bad_yaml(error), None
    if merged := re.search(r"Merge error: (\w+) is not a subclass of (\w+)\. value: (.*)", text):
        key = merged[2].lower()  # of a typed part of the root: Tracking, Monitor
        if key in groups() and merged[1] == "str":
            return named_option(key, merged[3]), None
        return Problem(key, f"is {merged[3]!r}, and needs a mapping"), None
    text = re.sub(r"^In '(.+)': \w+ raised while composing config:\n", r"\1: ", text)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    key = re.search(r"(?:full_key: |override ')([\w.]+)|override '\+*([\w.]+)", text)
    name = (key[1] or key[2]) if key else ""
    culprit = next((o for o in overrides if name and key_of(o) == name), None)
    culprit = culprit or next((o for o in overrides if key_of(o) and key_of(o) in first), None)
    if "could not be converted to Integer" in f"{text}{error.__cause__}":
        return Problem(culprit or name, "needs a whole number"), culprit
    if "Ambiguous value for argument" in text:
        return Problem(culprit or name, "several values; to run them all, add -m"), culprit
    if "Cannot merge DictConfig with ListConfig" in text:
        what = (
            "a list stands where a mapping belongs; callbacks have names: callbacks: {NAME: {_target_: ...}}"
        )
        return Problem(culprit or name, what), culprit
    if first.startswith("Config group override must be") or isinstance(error, TypeError):
        culprit = next((o for o in overrides if key_of(o) in groups() and _is_no_name(o)), None)
        if culprit:
            group, option = key_of(culprit), culprit.partition("=")[2]
            what = f"a group takes the name of an option; {options(group)}"
            if option in groups()[group]:
                what = f"reads as a number; quoted it is the option: \"{group}='{option}'\""
            return Problem(culprit, what), culprit
    return Problem(culprit or name, first.rstrip(".")), culprit


def named_option(group: str, name: str) -> Problem:
    """What is wrong with an experiment that has `group: name`, where an option of the group is meant."""
    what = f"is the text {name!r}; an option is chosen in the defaults list: - override /{group}: {name}"
    return Problem(group, what)


def _is_no_name(override: str) -> bool:
    """Whether the value is null, true, false or a number, to which `nan` and `inf` belong too."""
    parsed = OverridesParser.create().parse_override(override)
    return not parsed.is_delete() and not isinstance(parsed.value(), str | list)


def _missing_option(path: str, overrides: list[str]) -> tuple[Problem, str | None]:
    group, _, option = path.rpartition("/")
    culprit = next((o for o in overrides if key_of(o).split("@")[0] == group and o.endswith(option)), None)
    known = list(groups().get(group, {}))
    what = f"no such {group}; {suggest(option, known)}" if known else "no such config file"
    return Problem(culprit or path, what), culprit


def _bad_yaml(error: Exception) -> Problem:
    cause: Any = error if isinstance(error, YAMLError) else error.__cause__
    mark = getattr(cause, "problem_mark", None) or getattr(cause, "context_mark", None)
    if mark is None:
        return Problem("", f"bad YAML: {cause}")
    where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}"
    if "'\\t'" in str(cause):
        return Problem(where, "bad YAML: a tab; YAML wants blanks")
    return Problem(where, f"bad YAML: {cause.problem or cause.context}; look at the blanks before this line")
