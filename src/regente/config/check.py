"""Stage 2 of a run: every reason why a composed config cannot run, all at once, before torch is imported.

This module checks the root of the config and the ranges by place; check_part.py each part against the signature of
its class; check_consistency.py what two parts must agree on. limits.py has the ranges.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regente.config import tracking_uri
from regente.config.check_consistency import consistency_problems
from regente.config.check_part import NAMED, part_problems, shorten, unknown_settings
from regente.config.discovery import groups, options
from regente.config.limits import BY_KEY
from regente.config.root_keys import OWN
from regente.config.schema import ROOT_KEYS, Monitor, Tracking
from regente.config.task_parts import OPTIONAL, PARTS, given_to, has, is_none, signature_of
from regente.errors import Problem

# What people write at the root that is no setting of a config
SAID = {
    "experiment": "is the first word, without a key, and one at a time: regente train NAME SETTINGS",
    "runs_dir": "runs are made in ./runs; to keep them elsewhere, make that a link: ln -s /elsewhere runs",
}


def check(
    config: dict[str, Any],
    parts: Collection[str] | None = None,
    known: dict[str, list[Problem]] | None = None,
    shared: Collection[str] = (),
) -> list[Problem]:
    """The problems of a resolved config; none means that it can run, machine and data permitting.

    With `parts`, only these root keys are compared with their signatures. `known` keeps the problems of each part: most
    of the thousand jobs of a sweep have most parts in common. `shared`: root keys of the user's that others refer to.
    """
    known = {} if known is None else known
    problems = [*_root_problems(config, shared), *_referred_problems(config)]
    repeated = tuple(f".{each.where.rpartition('.')[2]}" for each in problems if "=" in each.where)
    if not problems and (parts is None or "tracking" in parts):
        problems += tracking_uri.problems(
            config["tracking"]["uri"], Path.cwd(), create=config["tracking"]["create"]
        )
    for where, node in _parts(config):
        if parts is None or where.partition(".")[0] in parts:
            text = f"{where}={node!r}"
            if text not in known:
                known[text] = part_problems(where, node)
            problems += [each for each in known[text] if not each.where.endswith(repeated)]
    if not problems and (parts is None or "task" in parts):
        problems += _lacking_problems(config)
    problems = problems or list(_limit_problems(config))
    return problems or list(consistency_problems(config))


def _root_problems(config: dict[str, Any], shared: Collection[str]) -> Iterator[Problem]:
    for key in [key for key in config if key not in (*ROOT_KEYS, *OWN, *shared)]:
        if key in groups():
            yield Problem(key, "a group whose settings are elsewhere in the config; --cfg job shows where")
        else:
            close = get_close_matches(key, [*ROOT_KEYS, "hydra"], n=1)
            kind = "group" if close and close[0] in groups() else "setting"
            parts = [f"{part}.{key}" for part, node in _parts(config) if _takes(node, key)]
            hint = f"a variable of your own goes to {OWN[0]}.{key}; there is: {', '.join(ROOT_KEYS)}"
            hint = f"did you mean {' or '.join(parts or close)}?" if parts or close else hint
            yield Problem(key, SAID.get(key) or f"no such {kind}; {hint}")
    for key, value in config.items():
        if value is None and key in groups():
            option = f"; nothing is {key}=none" if "none" in groups()[key] else ""
            yield Problem(key, f"is null; {options(key)}{option}")
    for key, fields in (("monitor", Monitor), ("tracking", Tracking)):
        yield from unknown_settings(key, config[key], fields.__dataclass_fields__, key)


def _takes(node: dict[str, Any], key: str) -> bool:
    signature = signature_of(node) if isinstance(node, dict) else None
    return key in node or (signature is not None and key in signature.parameters)


def _referred_problems(config: dict[str, Any]) -> Iterator[Problem]:
    """What parts refer to comes first: they would only repeat what is wrong with it."""
    if not 0 <= config["seed"] < 2**32:
        yield Problem(f"seed={config['seed']}", "must be from 0 to 4294967295")
    limit, mode = BY_KEY["monitor.mode"], config["monitor"]["mode"]
    if not limit.allows(mode):
        yield Problem(f"monitor.mode={shorten(mode)}", limit.message)


def _parts(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part with its dotted key; a callback or logger that is null is off."""
    for key in ("data", "model", "task", "optimizer", "scheduler", "trainer"):
        if config[key] is not None and not (key in PARTS and is_none(config[key])):
            yield key, config[key]
    if has(config, "loss"):
        yield "loss", config["loss"]
    for group in NAMED:
        for name, node in (config.get(group) or {}).items():
            if node is not None:
                yield f"{group}.{name}", node


def _some(part: str) -> str:
    return ", ".join(f"{part}={option}" for option in groups()[part] if option != "none")


def _lacking_problems(config: dict[str, Any]) -> Iterator[Problem]:
    """Parts that the task cannot do without."""
    signature = signature_of(config["task"])
    parameters = signature.parameters if signature else {}
    given = given_to(config["task"])
    for part in OPTIONAL:
        needed = part in parameters and parameters[part].required and part not in config["task"]
        if needed and not has(config, part):
            what = f"is none, and {config['task']['_target_']} needs one; choose one: {_some(part)}"
            yield Problem(part, what)
    for part in [part for part in PARTS if is_none(config[part])]:
        for key in [key for key in config[part] if key != "_target_"]:
            yield Problem(f"{part}.{key}", f"there is no {part} to take it; choose one: {_some(part)}")
        # a schedule is given as None where there is none
        if part != "scheduler" and part in given and part in parameters and parameters[part].required:
            what = f"is none, and {config['task']['_target_']} needs one; choose one: {_some(part)}"
            yield Problem(part, what)


def _limit_problems(config: dict[str, Any]) -> Iterator[Problem]:
    for where, limit in BY_KEY.items():
        part, _, key = where.partition(".")
        if key in config[part] and not limit.allows(config[part][key]):
            yield Problem(f"{where}={shorten(config[part][key])}", limit.message)
