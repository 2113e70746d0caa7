"""The code of two runs, by the commits and patches that they record."""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from regente.analysis.differences import Difference
from regente.jobs.found_files import read_text
from regente.jobs.job import PROVENANCE, read_json
from regente.tracking.provenance import diff_of_commits
from regente.tracking.run_artifacts import PATCH

CODE = re.compile(r"\.(py[ix]?|c|cc|cpp|cuh?|h|hpp)$")
COMMIT = re.compile(r"[0-9a-f]{7,64}")  # a found directory may hold any text
Change = list[str]  # the lines of a diff that add or remove


def code_differences(a: Path, b: Path, project: Path, used: Collection[str] = ()) -> Iterator[Difference]:
    """A line for each file that differs in two job directories; those of classes that are `used` first, then other code."""
    codes = [read_json(path / PROVENANCE).get("code") or {} for path in (a, b)]
    commits = [str(code.get("commit") or "") for code in codes]
    then, now = (_changes(_patch(path)) for path in (a, b))
    between: dict[str, Change] | None = {}
    if commits[0] != commits[1]:
        known = all(COMMIT.fullmatch(commit) for commit in commits)
        text = diff_of_commits(project, *commits) if known else None
        between = None if text is None else _changes(text)
    if between is None:
        yield Difference("code", "commit", " | ".join(commit[:9] or "none" for commit in commits))
        between = {}
    changed = {name: _sum(name, then, now, between) for name in dict.fromkeys([*between, *then, *now])}
    for name in sorted(changed, key=lambda name: (not _is_used(name, used), not CODE.search(name), name)):
        if lines := changed[name]:
            added = sum(line.startswith("+") for line in lines)
            text = f"+{added} -{len(lines) - added} lines"
            yield Difference("code" if CODE.search(name) else "records", name, text)
    if not any(changed.values()) and codes[0].get("patch") != codes[1].get("patch") and not (then or now):
        yield Difference("code", "uncommitted changes", "differ; their patch is not in the job directory")


def _sum(name: str, then: dict[str, Change], now: dict[str, Change], between: dict[str, Change]) -> Change:
    """The changed lines of a file from one run to the other; empty where it is the same in both."""
    old, new, committed = then.get(name, []), now.get(name, []), between.get(name, [])
    if not committed:
        return [
            *(_reverse(line) for line in old if line not in new),
            *(line for line in new if line not in old),
        ]
    if committed == old and not new:  # what was not committed then is now
        return []
    if [_reverse(line) for line in committed] == new and not old:
        return []
    return [*committed, *new] if committed != old else new


def _reverse(line: str) -> str:
    return ("-" if line.startswith("+") else "+") + line[1:]


def _changes(patch: str) -> dict[str, Change]:
    """The added and removed lines of each file of a patch."""
    found = {}
    for part in re.split(r"(?m)^(?=diff --git )", patch)[1:]:
        head, _, body = part.partition("\n")
        names = head.removeprefix("diff --git ")  # a/NAME b/NAME
        lines = body.split("\n@@", 1)[-1].split("\n")[1:] if "\n@@" in body else [f"+{body[:200]}"]
        found[names[len(names) // 2 + 3 :]] = [line for line in lines if line[:1] in ("+", "-")]
    return found


def _patch(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return read_text(path / PATCH)
    return ""


def _is_used(name: str, targets: Collection[str]) -> bool:
    """Whether a part of the config is a class of this file."""
    module = re.sub(r"(/__init__)?\.py$", "", name).removeprefix("src/").replace("/", ".")
    return any(target.startswith(f"{module}.") for target in targets)
