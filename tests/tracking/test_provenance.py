"""What provenance says of real repositories, of this machine and of running processes."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regente.tracking.provenance import (
    Code,
    Usage,
    code,
    fingerprint,
    hardware,
    packages,
    torch_facts,
    visible_gpus,
    without_credentials,
)

BUSY = "while True: sum(range(1000))"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit on main."""
    folder = tmp_path / "ours"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("lr = 1\nsteps = 2\n")
    (folder / "gone.py").write_text("old = True\n")
    (folder / "picture.bin").write_bytes(b"\0\1\2" * 500)
    (folder / ".gitignore").write_text("runs/\nmlflow.db*\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_a_clean_repository_is_its_commit(repository: Path) -> None:
    assert code(repository) == Code(git(repository, "rev-parse", "HEAD"), "main", False, None, "")


def test_the_patch_makes_the_code_that_ran_out_of_the_commit(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 3\nsteps = 2\nname = 'é'")  # no newline at the end
    (repository / "gone.py").unlink()
    (repository / "staged.py").write_text("staged = 1\n")
    git(repository, "add", "staged.py")
    new = repository / "new models"
    new.mkdir()
    (new / "größe.py").write_bytes(b"x = 1\r\n\x0c\n\ny = 2")
    (new / "empty.py").write_text("")
    (new / "go.sh").write_text("#!/bin/sh\n")
    (new / "go.sh").chmod(0o755)
    found = code(new)  # a folder inside, as a project may be
    assert found.dirty
    other = repository.parent / "other"
    git(repository.parent, "clone", "-q", "ours", "other")
    (repository.parent / "patch").write_bytes(found.patch.encode())
    git(other, "apply", "../patch")
    ours, theirs = (
        {
            str(path.relative_to(top)): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file() and ".git/" not in str(path)
        }
        for top in (repository, other)
    )
    assert ours == theirs
    assert os.access(other / "new models" / "go.sh", os.X_OK)


def test_what_is_ignored_binary_secret_or_large_is_not_in_the_patch(repository: Path) -> None:
    (repository / "picture.bin").write_bytes(b"\0\3" * 500)
    (repository / "runs").mkdir()
    (repository / "runs" / "config.yaml").write_text("ignored: 1\n")
    (repository / "mlflow.db").write_text("ignored")
    (repository / "digits.csv").write_text("1,2\n")
    (repository / "big.py").write_text("x = 1\n" * 20_000)
    (repository / "secrets.yaml").write_text("key: hunter2\n")
    (repository / "latin.py").write_bytes(b"# \xe9\n")
    (repository / "link.py").symlink_to("/etc/hostname")
    (repository / "kept.py").write_text("kept = 1\n")
    patch = code(repository).patch
    assert re.findall(r"(?m)^diff --git a/(\S+)", patch) == ["kept.py"]
    said = (
        "picture.bin (1.0 KB), big.py (120.0 KB), latin.py (0.0 KB), link.py (0.0 KB), secrets.yaml (0.0 KB)"
    )
    assert patch.splitlines()[-1] == f"# left out: {said}"


def test_outputs_are_not_code_where_nobody_told_git_to_ignore_them(repository: Path) -> None:
    (repository / "sub" / "runs").mkdir(parents=True)
    (repository / "sub" / "runs" / "config.yaml").write_text("a: 1\n")
    assert not code(repository / "sub").dirty


def test_a_patch_stays_within_a_megabyte_and_names_what_it_lacks(repository: Path) -> None:
    for index in range(14):
        (repository / f"part_{index:02}.py").write_text(f"x = {index:02}  # ...\n" * 5_800)
    patch = code(repository).patch
    assert 900_000 < len(patch) < 1_001_000
    assert patch.splitlines()[-1].startswith("# left out: part_")


def test_a_repository_without_commits_is_all_patch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "staged.py").write_text("a = 1\n")
    git(tmp_path, "add", "staged.py")
    (tmp_path / "new.py").write_text("b = 2\n")
    found = code(tmp_path)
    assert (found.commit, found.branch, found.dirty) == (None, "main", True)
    assert "+a = 1" in found.patch
    assert "+b = 2" in found.patch


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert code(repository).branch is None


def test_settings_of_the_user_do_not_change_the_patch(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 5\nsteps = 2\n")
    patch = code(repository).patch
    for setting in (
        "diff.noprefix=true",
        "color.diff=always",
        "diff.external=false",
        "diff.mnemonicPrefix=true",
    ):
        git(repository, "config", *setting.split("="))
    assert code(repository).patch == patch
    assert "+lr = 5" in patch


def test_the_index_of_the_user_is_not_written(repository: Path) -> None:
    os.utime(repository / "train.py", (1, 1))  # git would refresh it
    before = (repository / ".git" / "index").read_bytes()
    code(repository)
    assert (repository / ".git" / "index").read_bytes() == before


def test_the_remote_has_no_credentials(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://ada:s3cret@example.org/ours.git?token=s3cret")
    assert code(repository).remote == "https://example.org/ours.git"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("oauth2:tok@github.com:a/b.git", "github.com:a/b.git"),
        ("https://u:p@ss@host/a", "https://host/a"),
        ("https://tok@host/a@v1", "https://host/a@v1"),
        ("codecommit::https://u:p@host/a", "codecommit::https://host/a"),
        ("/srv/a@b.git", "/srv/a@b.git"),
    ],
)
def test_credentials_leave_an_address_and_nothing_else_does(url: str, expected: str) -> None:
    assert without_credentials(url) == expected


def test_what_is_redacted_is_redacted_in_the_patch(repository: Path) -> None:
    (repository / "new.py").write_text("key = 'abc123'\n")
    assert "key = '***'" in code(repository, lambda text: text.replace("abc123", "***")).patch


def test_without_a_repository_a_folder_or_git_there_is_nothing_to_say(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code(tmp_path / "nowhere") == Code()
    assert code(tmp_path) == Code()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code(repository) == Code()


def test_packages_are_sorted_unique_and_without_folders_of_this_machine() -> None:
    lines = packages().splitlines()
    names = [line.split("==")[0].lower().replace("_", "-").replace(".", "-") for line in lines]
    assert names == sorted(set(names))
    assert "torch" in names
    assert str(Path.home()) not in packages()


def test_packages_from_elsewhere_say_from_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origins = {
        "ours": '{"url": "file:///home/ada/ours", "dir_info": {"editable": true}}',
        "copy": '{"url": "file:///home/ada/copy", "dir_info": {}}',
        "far": '{"url": "https://u:p@host/far", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
        "odd": "{",
    }
    for name, origin in origins.items():
        folder = tmp_path / f"regente_{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: regente_{name}\nVersion: 1\n")
        (folder / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = packages().splitlines()
    for line in ("ours==1  # editable", "copy==1  # local", "far==1  # https://host/far@abc", "odd==1"):
        assert f"regente_{line}" in lines


def test_hardware_names_the_machine() -> None:
    facts = hardware()
    assert {"host", "os", "python", "cpu", "cores_logical", "cores_usable", "memory_gib"} <= set(facts)
    assert 1 <= int(facts["cores_usable"]) <= int(facts["cores_logical"])
    assert all(isinstance(value, str | int | float) for value in facts.values())


def test_a_fingerprint_depends_on_what_decides_the_bits_alone() -> None:
    facts = hardware() | torch_facts()
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(facts))
    assert fingerprint({key: str(value) for key, value in facts.items()}) == fingerprint(facts)
    assert fingerprint(facts | {"host": "other", "memory_gib": 1}) == fingerprint(facts)
    for key in ("cpu", "cpu_flags", "threads", "gpus", "torch", "cpu_capability"):
        assert fingerprint(facts | {key: "other"}) != fingerprint(facts)


def test_usage_counts_the_children(started: list[subprocess.Popen[bytes]]) -> None:
    started.append(subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True))
    usage = Usage(started[0].pid)
    time.sleep(1.0)
    found = usage.sample()
    os.killpg(started[0].pid, 9)
    assert 20 < found["system/cpu_percent"] < 130  # the cores may be shared
    assert found["system/threads"] == 2
    assert 2 < found["system/memory_mb"] < 200


def test_usage_leaves_this_process_out(started: list[subprocess.Popen[bytes]]) -> None:
    before = Usage(os.getpid()).sample()["system/threads"]  # of other children that the tests may have
    started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    assert Usage(os.getpid()).sample()["system/threads"] == before + 1


def test_a_process_that_is_gone_uses_nothing(started: list[subprocess.Popen[bytes]]) -> None:
    started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    usage = Usage(started[0].pid)
    assert usage.sample()
    started[0].kill()
    os.waitid(os.P_PID, started[0].pid, os.WEXITED | os.WNOWAIT)
    assert usage.sample() == {}  # not yet waited for
    started[0].wait()
    assert usage.sample() == {}
    assert Usage(started[0].pid).sample() == {}


SMI = """#!/bin/sh
echo "0, GPU-aa, 10, 100"
echo "1, GPU-bb, [N/A], 200"
"""


def test_gpus_are_those_that_cuda_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    program = tmp_path / "nvidia-smi"  # speaks as the real one does
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    rows = [["10", "100"], ["[N/A]", "200"]]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus("utilization.gpu,memory.used") == rows
    for visible, expected in {"1": rows[1:], "1,0": rows[::-1], "GPU-b": rows[1:], "": [], "-1": []}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert visible_gpus("utilization.gpu,memory.used") == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    found = Usage(started[0].pid).sample()
    assert {key: value for key, value in found.items() if "gpu" in key} == {"system/gpu_0_memory_mb": 200.0}
