"""Code, packages and machine of a run. What a missing or slow program would print is omitted."""

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import distributions
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from regente.errors import first_of

PATIENCE = 5.0  # seconds for one call of git or nvidia-smi
MOST_FILE, MOST_PATCH, MOST_OUTPUT = 100_000, 1_000_000, 64_000_000  # bytes
SOURCE = re.compile(
    r"\.(py[ix]?|ipynb|ya?ml|toml|cfg|ini|md|sh|c|cc|cpp|cuh?|h|hpp)$|(^|/)(Make|Docker)file$"
)
UNFIT = re.compile(
    r"(?i)secret|credential|passw|[\x00-\x1f\"\\\udc80-\udcff]"
)  # names of files that are not read
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of such bytes
OUTPUTS = ("runs/", "multirun/", "mlartifacts/", "mlruns/")  # Regente's own, even if git does not ignore them
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")  # the last two are ARM's
DECISIVE = ["cpu", "cpu_flags", "cores_usable", "gpus", "gpu_driver"]
DECISIVE += ["torch", "cuda", "cudnn", "threads", "cpu_capability", "torch_gpus"]
GIT = ["git", "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.quotepath=off"]
GIT += ["-c", "diff.autoRefreshIndex=false"]  # it writes the index in spite of GIT_OPTIONAL_LOCKS
GIT += ["-c", "core.bigFileThreshold=10m"]  # larger ones are not compared line by line
DIFF = ["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative"]
DIFF += ["--ignore-submodules=all", "--src-prefix=a/", "--dst-prefix=b/"]


@dataclass(frozen=True)
class Code:
    """The code of a run: a commit, and a patch of the changes since, for `git apply`."""

    commit: str | None = None
    branch: str | None = None  # None when HEAD is detached
    dirty: bool = False
    remote: str | None = None
    patch: str = ""

    def facts(self) -> dict[str, Any]:
        """All fields, with a digest instead of the patch."""
        patch = sha256(self.patch.encode()).hexdigest() if self.patch else ""
        return {"commit": self.commit, "branch": self.branch, "remote": self.remote, "patch": patch}


def code(project: Path, redact: Callable[[str], str] = str) -> Code:
    """The state of the git repository of `project`; `redact` is applied to the remote and to each file of the patch."""
    place = _git(project, "rev-parse", "--show-toplevel", "--show-prefix")
    if place is None:
        return Code()
    top, prefix = place.split("\n")[:2]
    commit = _git(project, "rev-parse", "--verify", "-q", "HEAD")
    base = commit or _git(project, "hash-object", "-t", "tree", "--stdin") or "HEAD"  # an empty tree
    branch = _git(project, "symbolic-ref", "-q", "--short", "HEAD")
    settings = _git(project, "config", "--get-regexp", "^remote.*url$") or ""
    urls = dict(re.findall(r"(?m)^remote\.(.*)\.url (.*)$", settings))
    remote = urls.get("origin") or next(iter(urls.values()), None)
    parts, left_out, room = list[str](), list[str](), MOST_PATCH
    for name, part in (*_tracked(Path(top), base.strip()), *_untracked(Path(top), project, prefix)):
        size = len(part.encode(errors="surrogateescape")) if part else 0
        if part and size <= room and not NOT_UTF8.search(part):
            parts.append(redact(part))
            room -= size
        else:
            left_out.append(f"{name if name.isprintable() else ascii(name)} ({_size(Path(top, name))})")
    if left_out:
        parts.append(f"# left out: {first_of(left_out, 20)}\n")
    commit, branch = (commit or "").strip() or None, (branch or "").strip() or None
    return Code(commit, branch, bool(parts), remote and redact(without_credentials(remote)), "".join(parts))


def diff_of_commits(project: Path, then: str, now: str) -> str | None:
    """The diff from one commit to another in the git repository of `project`; None if it does not have both."""
    place = _git(project, "rev-parse", "--show-toplevel")
    return _git(Path(place.strip()), *DIFF, then, now, "--") if place else None


def without_credentials(url: str) -> str:
    """A URL without user, password and query; the `git@` of SSH stays."""
    return re.sub(r"^((?:[\w+.-]+::)?[\w+.-]+://)?(?!git@[^@]*$)[^/]*@", r"\1", re.split(r"[?#]", url)[0])


def _tracked(top: Path, base: str) -> Iterator[tuple[str, str | None]]:
    """Name and diff of each changed tracked file; no diff for a binary file."""
    diff = _git(top, *DIFF, base)
    if diff is None:
        yield "changes of tracked files", None
    for part in re.split(r"(?m)^(?=diff --git )", diff or "")[1:]:
        head, _, body = part.partition("\n")
        names = head.removeprefix("diff --git ")  # a/NAME b/NAME
        if body:  # empty where only the time differs
            yield names[len(names) // 2 + 3 :], None if re.search(r"(?m)^Binary files ", body) else part


def _untracked(top: Path, project: Path, prefix: str) -> Iterator[tuple[str, str | None]]:
    """Name and diff of each new source file of the project; no diff for a large or special file, or one without text."""
    names = _git(project, "ls-files", "--others", "--exclude-standard", "--full-name", "-z")
    if names is None:
        yield "untracked files", None
    for name in (names or "").split("\0"):
        if not SOURCE.search(name) or name.startswith(tuple(prefix + folder for folder in OUTPUTS)):
            continue
        path, part = top / name, None
        with suppress(OSError):
            plain = path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_FILE
            text = path.read_bytes() if plain and not UNFIT.search(name) else b"\0"
            part = None if b"\0" in text else _new_file(name, text.decode(errors="surrogateescape"), path)
        yield name, part


def _new_file(name: str, text: str, path: Path) -> str:
    """The diff that creates a file."""
    mode = "100755" if os.access(path, os.X_OK) else "100644"
    head = f"diff --git a/{name} b/{name}\nnew file mode {mode}\n"
    if not text:
        return head
    lines = text.removesuffix("\n").split("\n")
    head += f"--- /dev/null\n+++ b/{name}\t\n@@ -0,0 +1,{len(lines)} @@\n"  # the tab ends a name that contains blanks
    end = "\n" if text.endswith("\n") else "\n\\ No newline at end of file\n"
    return head + "\n".join(f"+{line}" for line in lines) + end


def packages() -> str:
    """The installed packages as sorted lines `name==version`; of two with one name, the imported one."""
    found: dict[str, str] = {}
    for each in distributions():
        facts = each.read_text("METADATA") or each.read_text("PKG-INFO") or ""
        name, version = (re.search(rf"(?m)^{key}: *(\S+)", facts) for key in ("Name", "Version"))
        if name and version:
            line = f"{name[1]}=={version[1]}{_origin(each.read_text('direct_url.json'))}\n"
            found.setdefault(re.sub(r"[-_.]+", "-", name[1]).lower(), line)
    return "".join(found[key] for key in sorted(found))


def _origin(direct_url: str | None) -> str:
    """The origin of a package that is not from an index, without folders of this machine."""
    with suppress(ValueError, AttributeError):  # damaged
        facts = json.loads(direct_url or "{}")
        if facts.get("dir_info", {}).get("editable"):
            return "  # editable"
        url = (
            "local" if facts.get("url", "").startswith("file:") else without_credentials(facts.get("url", ""))
        )
        return f"  # {url}@{facts.get('vcs_info', {}).get('commit_id', '')}".rstrip("@") if url else ""
    return ""


def hardware() -> dict[str, str | int | float]:
    """The hardware and operating system of this machine; unknown values are omitted."""
    import psutil

    facts: dict[str, Any] = {"host": platform.node(), "os": platform.platform()}
    facts["python"] = platform.python_version()
    try:
        rows = [row.partition(":") for row in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    except OSError:  # macOS
        rows = [("model name", ":", _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or "")]
    cpu = {key.strip(): value.strip() for key, _, value in rows}
    facts["cpu"] = cpu.get("model name") or platform.machine()
    has = (cpu.get("flags") or cpu.get("Features") or "").split()
    facts["cpu_flags"] = " ".join(flag for flag in CPU_FLAGS if flag in has)
    facts |= {"cores_physical": psutil.cpu_count(logical=False), "cores_logical": os.cpu_count()}
    usable = getattr(os, "sched_getaffinity", lambda pid: range(os.cpu_count() or 1))  # not on macOS
    facts["cores_usable"] = len(usable(0))
    facts["memory_gib"] = round(psutil.virtual_memory().total / 2**30, 1)
    facts["cuda_visible_devices"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus := visible_gpus("name,memory.total,driver_version"):
        facts["gpus"], facts["gpu_driver"] = ", ".join(f"{row[0]} {row[1]} MiB" for row in gpus), gpus[0][2]
    return {key: value for key, value in facts.items() if value not in (None, "")}


def fingerprint(facts: dict[str, Any]) -> str:
    """A digest of DECISIVE facts, which is equal for machines that compute the same bits."""
    return sha256(json.dumps([str(facts.get(key, "")) for key in DECISIVE]).encode()).hexdigest()[:12]


def torch_facts() -> dict[str, str | int]:
    """Versions and devices of torch, for a process whose model is on its device; this does not initialize CUDA."""
    import torch

    facts: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    facts |= {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # loads it: 0.3 s
        names = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        facts["torch_gpus"] = ", ".join(names)
    return {key: value if isinstance(value, int) else str(value) for key, value in facts.items() if value}


class Usage:
    """Resources that a process and its children use between two samples, without this process."""

    def __init__(self, pid: int) -> None:
        import psutil

        self.at, self.seconds, self.asks_gpus = time.monotonic(), dict[tuple[int, float], float](), True
        self.root: Any = None
        with suppress(psutil.Error):
            self.root = psutil.Process(pid)
            self.sample()

    def sample(self) -> dict[str, float]:
        """CPU percent (100 is one core) since the last sample, memory, threads, GPUs; empty once the process is dead."""
        import psutil

        seconds, memory, threads = dict[tuple[int, float], float](), 0.0, 0
        try:
            if self.root is None or not self.root.is_running() or self.root.status() == psutil.STATUS_ZOMBIE:
                return {}
            family = [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return {}
        family = [each for each in family if each.pid != os.getpid()]
        for each in family:
            with suppress(psutil.Error):
                times = each.cpu_times()
                seconds[each.pid, each.create_time()] = times.user + times.system
                memory += _memory(each, shares=len(family) > 1)
                threads += each.num_threads()
        now = time.monotonic()
        used = sum(value - self.seconds.get(key, 0.0) for key, value in seconds.items())
        percent = 100 * used / max(now - self.at, 1e-3)
        self.at, self.seconds = now, seconds
        found = {"system/cpu_percent": percent, "system/memory_mb": memory, "system/threads": float(threads)}
        gpus = visible_gpus("utilization.gpu,memory.used") if self.asks_gpus else []
        self.asks_gpus = bool(gpus)  # without output it is not called again
        for index, row in enumerate(gpus):
            for name, value in zip(("percent", "memory_mb"), row, strict=False):
                with suppress(ValueError):  # [N/A]
                    found[f"system/gpu_{index}_{name}"] = float(value)
        return found


def _memory(process: Any, shares: bool) -> float:
    """Megabytes; the kernel divides memory that forked workers share among them (10 ms per GB)."""
    with suppress(OSError, IndexError):
        if shares:
            said = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            return int(said.split("\nPss:")[1].split()[0]) / 1024
    return float(process.memory_info().rss) / 2**20


def visible_gpus(query: str) -> list[list[str]]:
    """A row of nvidia-smi for each GPU in CUDA_VISIBLE_DEVICES, in its order; without it in that of the PCI bus."""
    said = _output(["nvidia-smi", f"--query-gpu=index,uuid,{query}", "--format=csv,noheader,nounits"]) or ""
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    words = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(row[0] for row in rows)).split(",")
    found = ([row for row in rows if row[0] == word or row[1].startswith(word or "-")] for word in words)
    return [
        same[0][2:] for same in takewhile(bool, found)
    ]  # like CUDA, it stops at the first that does not exist


def _git(folder: Path, *words: str) -> str | None:
    env = {key: os.environ[key] for key in os.environ.keys() - {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    return _output([*GIT, *words], folder, env)


def _output(command: list[str], folder: Path | None = None, env: dict[str, str] | None = None) -> str | None:
    """The output of a program; None if it is missing, fails, or takes too long or prints too much."""
    with suppress(OSError), TemporaryFile() as out:  # not a pipe, which a hanging child would hold open
        nothing = subprocess.DEVNULL
        program = subprocess.Popen(command, cwd=folder, env=env, stdin=nothing, stdout=out, stderr=nothing)
        with suppress(subprocess.TimeoutExpired):
            if program.wait(PATIENCE) or out.seek(0, os.SEEK_END) > MOST_OUTPUT:
                return None
            out.seek(0)
            return out.read().decode(errors="surrogateescape")
        program.kill()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot be killed
            program.wait(1)
    return None


def _size(path: Path) -> str:
    with suppress(OSError):
        return f"{path.lstat().st_size / 1000:.1f} KB"
    return "size unknown"
