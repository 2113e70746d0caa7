"""Secrets of a config live in the environment: the config that is kept refers to them as `${oc.env:NAME}`."""

import os
import re
from typing import Any
from zlib import crc32

from regente.config.redaction import escaped, literal, looks_secret, replace_secrets

SECRET = "REGENTE_SECRET_"  # of the variables that have what a config says literally
VARIABLE = re.compile(r"\$\{oc\.env:\s*([A-Za-z_]\w*)\s*(?:,([^${}]*))?\}")


def env_references(yaml_text: str) -> dict[str, str]:
    """The variables that a config reads with `${oc.env:NAME}`, and their values, where they have one."""
    names = re.findall(r"\$\{\s*oc\.env:\s*[\"']?([A-Za-z_]\w*)", yaml_text)
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def literal_secrets(yaml_text: str) -> list[str]:
    """A line for each secret of a config that stood in it literally: which variable has to have it later on."""
    names = dict.fromkeys(re.findall(rf"\$\{{oc\.env:({SECRET}\w+)", yaml_text))
    where = "a secret stands in the config literally"
    later = "a later evaluate or resume needs it again as the variable"
    return [f"{where}; no file keeps it, and {later} {name}; better write ${{oc.env:NAME}}" for name in names]


def from_environment(text: str) -> str:
    """The text with the values of the variables that it names as `${oc.env:NAME}` or `${oc.env:NAME,DEFAULT}`."""
    return VARIABLE.sub(lambda found: os.environ.get(found[1], (found[2] or "").strip(" \"'")), text)


def externalize(yaml_text: str) -> tuple[str, dict[str, str]]:
    """The config's text with `${oc.env:REGENTE_SECRET_...}` for each literal secret, and those variables' values."""
    import yaml

    variables: dict[str, str] = {}
    edits: dict[int, tuple[int, str]] = {}

    def reference(key: str, value: str) -> str:
        if "${" in value:  # it refers to something, which would be lost in a variable
            return value
        name = stem = f"{SECRET}{crc32(key.encode()):08x}"
        while variables.setdefault(name, value) != value:  # several in one scalar
            name = f"{stem}_{int(name.removeprefix(stem).lstrip('_') or 1) + 1}"
        return f"${{oc.env:{name}}}"

    def walk(node: Any, key: str, secret: bool) -> None:
        if isinstance(node, yaml.MappingNode):
            inherited = secret and all(name.value != "_target_" for name, _ in node.value)
            for name, value in node.value:
                child = f"{key}.{name.value}" if key else str(name.value)
                walk(value, child, inherited or looks_secret(child))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, f"{key}[{index}]", secret)
        elif node.start_mark.index not in edits and not node.tag.endswith((":bool", ":null")):
            new = _whole(node, key) if secret and literal(node.value) else ""
            new = new or replace_secrets(node.value, lambda found: reference(key, found), secret=secret)
            if new != node.value:
                edits[node.start_mark.index] = node.end_mark.index, new

    def _whole(node: Any, key: str) -> str:
        number = node.style is None and re.fullmatch(r"[-+]?[\d_.]+(?:[eE][-+]?\d+)?", node.value)
        return f"${{oc.decode:{reference(key, node.value)}}}" if number else reference(key, node.value)

    root = yaml.compose(yaml_text, Loader=yaml.SafeLoader)
    if root is not None:
        walk(root, "", False)
    for start, (end, new) in sorted(edits.items(), reverse=True):
        old = yaml_text[start:end]
        properties = re.match(r"(?:[&!]\S+\s+)*", old)
        quoted = "'" + new.replace("'", "''") + "'" if new.isprintable() else escaped(new)
        tail = "\n" if old.endswith("\n") else ""  # of a block scalar
        yaml_text = (
            yaml_text[:start] + (properties[0] if properties else "") + quoted + tail + yaml_text[end:]
        )
    return yaml_text, variables
