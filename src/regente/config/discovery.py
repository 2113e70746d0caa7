"""What there is to choose from: experiments and config groups, read from the file system without Hydra."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from regente.errors import ConfigError, Problem

DEFAULT_EXPERIMENT = "digits_cnn"


extra_dirs: list[Path] = []  # --config-dir


def config_dirs() -> list[Path]:
    """Folders that configs come from: the user's own, in the working directory, before the packaged ones."""
    own = [*extra_dirs, Path.cwd() / "experiments", Path.cwd() / "conf"]
    packaged = [_package_dir("regente.experiments"), _package_dir("regente.conf")]
    return list(dict.fromkeys(path.resolve() for path in [*own, *packaged] if path.is_dir()))


def add_config_dir(path: Path) -> None:
    """Look into this folder first."""
    if not path.is_dir():
        raise ConfigError([Problem(f"--config-dir {path}", "no such directory; name a folder that is there")])
    extra_dirs.insert(0, path)


def _package_dir(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def experiment_files() -> dict[str, Path]:
    """Name of each experiment and its file; a user's own hides the packaged one of the same name."""
    found: dict[str, Path] = {}
    for folder in config_dirs():
        if folder.name == "experiments":
            for path in sorted(folder.glob("*.yaml")):
                found.setdefault(path.stem, path)
    return found


def require_experiment(name: str) -> None:
    """Raise ConfigError, with the closest names, unless there is such an experiment."""
    known = experiment_files()
    if name not in known:
        raise ConfigError([Problem(f"experiment {name}", f"no such file; {suggest(name, list(known))}")])


def groups() -> dict[str, dict[str, Path]]:
    """Each config group with its options and their files, e.g. `model` -> `cnn` -> `conf/model/cnn.yaml`.

    A group of Hydra's own has its place as name: `hydra/sweeper`.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in config_dirs():
        if folder.name != "experiments":
            for path in sorted([*folder.glob("*/*.yaml"), *folder.glob("hydra/**/*.yaml")]):
                group = path.parent.relative_to(folder).as_posix()
                found.setdefault(group, {}).setdefault(path.stem, path)
    return found


def options(group: str) -> str:
    """What there is to choose from, in words."""
    return "there is: " + ", ".join(groups().get(group, {}))


def place(group: str) -> str:
    """Where in a config the choice of a group goes: under its own name, or where its files say `# @package`."""
    file = next(iter(groups()[group].values()))
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# @package").strip() if first.startswith("# @package") else group


def suggest(name: str, known: Sequence[str]) -> str:
    """`did you mean X?` where something is close, and what there is."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    others = ", ".join(sorted(set(known) - set(close)))
    return (
        f"did you mean {close[0]}? (also: {others})" if close and others else f"there is: {', '.join(known)}"
    )


def header_comment(file: Path) -> str:
    """The comment on the first line of a config file, or on the second behind Hydra's `# @package`."""
    with file.open(encoding="utf-8") as lines:
        first = next((line.strip() for line in lines if not line.startswith("# @")), "")
    return first.removeprefix("#").strip() if first.startswith("#") else ""
