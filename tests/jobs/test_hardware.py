"""What a process may use of its machine."""

from pathlib import Path

import pytest

from regente.jobs.hardware import cores


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/jobs/7", {"jobs/cpu.max": "100000 100000", "jobs/7/cpu.max": "max 100000"}),
        ("0::/jobs/7", {"jobs/7/cpu.max": "50000 100000"}),
        ("0::/", {"cpu.max": "150000 100000"}),
        (
            "3:cpu,cpuacct:/jobs",
            {
                "cpu,cpuacct/jobs/cpu.cfs_quota_us": "100000",
                "cpu,cpuacct/jobs/cpu.cfs_period_us": "100000",
            },
        ),
    ],
)
def test_the_quota_of_any_control_group_above_a_process_counts(
    groups: str, files: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.write_text(f"5:memory:/\n{groups}\n")
    free = cores(tmp_path / "none", tmp_path / "none")
    assert cores(tmp_path / "cgroup", own) == free
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert cores(tmp_path / "cgroup", own) == 1
    for file in (tmp_path / "cgroup").rglob("cpu.*"):
        file.write_text("-1\n" if "cfs" in file.name else "max 100000\n")
    assert cores(tmp_path / "cgroup", own) == free
