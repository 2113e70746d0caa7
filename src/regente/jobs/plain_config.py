"""What a recorded config of somebody else may hold: plain data, plain references, and paths within its job directory."""

import re
from collections.abc import Collection, Iterator
from typing import Any

import yaml

from regente.config.trusted_names import remedy
from regente.errors import Problem

HYDRA_KEYS = {  # Hydra's own keys
    "_target_": lambda value: value is None or isinstance(value, str),
    "_partial_": lambda value: isinstance(value, bool),
    "_recursive_": lambda value: isinstance(value, bool),
    "_convert_": lambda value: value in ("none", "partial", "object", "all"),
    "_args_": lambda value: isinstance(value, list),
}
KEY = r"[A-Za-z_][\w.\[\]]*"
READS = rf"oc\.env:\s*(?P<name>[A-Za-z_]\w*)\s*(?:,[^${{}}]*)?|oc\.(?:select|dict\.keys|dict\.values):\s*{KEY}|\.*{KEY}"
REFERENCE = re.compile(rf"\$\{{\s*(?:{READS})\s*\}}", re.ASCII)
DECODED = re.compile(r"\$\{oc\.decode:(\$\{[^${}]*\})\}")
LEADS_OUT = re.compile(
    r"[/\\~]|[A-Za-z]:|[A-Za-z][\w+.-]*://|(?:.*[/\\])?\.\.(?:[/\\]|$)"
)  # at the start of a path
HARMLESS = "|".join(  # variables of the environment that a run may set
    [
        r"(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB)_(NUM|MAX|MAXIMUM)_THREADS",
        *("OMP_(PROC_BIND|PLACES|DYNAMIC|WAIT_POLICY)", "KMP_(AFFINITY|BLOCKTIME)", "MKL_(DYNAMIC|CBWR)"),
        *("NCCL_(DEBUG|SOCKET_IFNAME|IB_DISABLE|P2P_DISABLE)", "PYTORCH_(CUDA_)?ALLOC_CONF"),
        *("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "TOKENIZERS_PARALLELISM"),
    ]
)
READABLE = "|".join(  # variables of the environment that a recorded config may read
    [
        HARMLESS,
        r"MLFLOW_TRACKING_URI|HOME|USER|LOGNAME|PWD|TMPDIR|HOSTNAME|SCRATCH|WORK|DATA|\w+_(DIR|ROOT|HOME|PATH|FOLDER)",
        r"(SLURM|PBS|LSB)_(JOB_?ID|ARRAY_TASK_ID|PROCID|NTASKS|NNODES|CPUS_PER_TASK)|RANK|LOCAL_RANK|WORLD_SIZE",
        r"REGENTE_SECRET_\w+",  # where Regente itself has put a secret of the command line
    ]
)
DEEPEST, LARGEST = 40, 200_000  # levels, and characters, of a recorded config
# libyaml: brackets without an end take the parser in Python minutes
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def text_problems(text: str, parts: Collection[str] | None, listed: tuple[str, ...]) -> Iterator[Problem]:
    """What the text of a recorded config may not hold, checked before any reference in it is followed."""
    if len(text) > LARGEST:
        yield Problem("config.yaml", f"{len(text)} characters; a recorded config is never so large")
        return
    try:
        depth = 0
        for event in yaml.parse(text, LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                yield Problem("config.yaml", "holds YAML aliases or tags, which no recorded config does")
                return
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                yield Problem("config.yaml", f"refused: nested more than {DEEPEST} levels")
                return
        content = yaml.load(text, LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        yield Problem("config.yaml", f"bad YAML: {' '.join(str(error).split())[:200]}")
        return
    if not isinstance(content, dict) or not all(
        isinstance(key, str | int | float) for _, key, _, _ in items(content)
    ):
        yield Problem("config.yaml", "is not a config")
        return
    unread = "tracking" if parts is not None and "tracking" not in parts else ""
    for where, value in _texts({key: value for key, value in content.items() if key != unread}):
        if unread and re.search(rf"\$\{{[^}}]*\b{unread}\b", value):
            yield Problem(where, f"refused: it reads {unread}, whose part this is not")
        for found in REFERENCE.finditer(value):
            name = found["name"] or ""
            if name and not re.fullmatch(READABLE, name) and f"env:{name}" not in listed:
                yield Problem(where, f"refused: it reads ${name}; if it may, {remedy(f'env:{name}')}")
        if "${" in REFERENCE.sub("", DECODED.sub(r"\1", value)):
            yield Problem(where, f"refused: {value[:60]} is more than a reference")


def items(node: Any, where: str = "", depth: int = 1) -> Iterator[tuple[str, Any, Any, int]]:
    """Dotted key, last key, value and depth of everything in a config; one level more than it may be deep."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        name = f"{where}[{key}]" if isinstance(node, list) else f"{where}.{key}" if where else str(key)
        yield name, key, value, depth
        if depth <= DEEPEST:
            yield from items(value, name, depth + 1)


def _texts(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text in a config with its dotted key, the keys too."""
    for where, key, value, _ in items(config):
        yield from ((where, text) for text in (key, value) if isinstance(text, str))


def plain_problems(config: dict[str, Any]) -> Iterator[Problem]:
    """What is not plain data, or would be read once more when the part is made."""
    # a folder of these lies in the job directory
    keepers = [
        where.removesuffix("_target_") + "dirpath"
        for where, key, value, _ in items(config)
        if key == "_target_" and str(value).endswith("ModelCheckpoint")
    ]
    for where, key, value, depth in items(config):
        if depth > DEEPEST:
            yield Problem(where, f"refused: nested more than {DEEPEST} levels")
        elif isinstance(key, str) and re.fullmatch(r"_\w*_", key):
            if key not in HYDRA_KEYS or not HYDRA_KEYS[key](value):
                yield Problem(where, f"refused: {str(value)[:60]} is no setting of Hydra's")
        elif not isinstance(key, str | int):
            yield Problem(where, f"refused: a key of type {type(key).__name__}")
        elif isinstance(value, str) and (_leads_out(where, value) or _is_folder(where, keepers)):
            yield Problem(where, f"refused: {value[:60]} leads out of the job directory; leave it out")
        if isinstance(value, str) and "${" in value:
            yield Problem(where, f"refused: {value[:60]} is a reference that would be followed later")
        elif value is not None and type(value) not in (int, float, bool, str, dict, list):
            yield Problem(where, f"refused: {type(value).__name__} is not plain data")


def _leads_out(where: str, text: str) -> bool:
    """Whether a callback, a logger or the trainer would write elsewhere."""
    return where.startswith(("callbacks.", "loggers.", "trainer.")) and (
        bool(LEADS_OUT.match(text)) or "\0" in text
    )


def _is_folder(where: str, keepers: Collection[str]) -> bool:
    """Whether it says where a callback of another kind writes."""
    return where.startswith("callbacks.") and where.endswith(".dirpath") and where not in keepers
