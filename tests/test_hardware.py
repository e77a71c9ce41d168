"""What a process may use: affinity, and the limits of containers in trees of control files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from workbench.hardware import address_limit, free_disk, host, memory, oom_kills, swap

GIB = 1 << 30


def _tree(root: Path, cgroup: str, **files: str) -> Path:
    """Write /proc/self/cgroup, and control files by their path below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_files_the_machine_is_what_there_is(tmp_path: Path) -> None:
    device = host(tmp_path)
    assert device.kind == "cpu"
    assert device.name
    assert device.memory_bytes == psutil.virtual_memory().total
    assert 0 < device.memory_available <= device.memory_bytes
    assert device.threads == len(os.sched_getaffinity(0))
    assert 1 <= device.cores <= device.threads
    assert device.features == frozenset()


def test_this_machine_is_described() -> None:
    device = host()
    assert device.name
    assert device.memory_bytes <= psutil.virtual_memory().total


def test_version_2_limits_memory_and_processors(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        "0::/\n",
        **{
            "cgroup.controllers": "cpu memory",
            "memory.max": f"{2 * GIB}\n",
            "memory.current": f"{GIB}\n",
            "memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
            "cpu.max": "150000 100000\n",
        },
    )
    device = host(root)
    assert device.memory_bytes == 2 * GIB
    # Inactive file pages are used, and given back on demand.
    assert device.memory_available == 2 * GIB - GIB // 2
    assert device.threads == 1


def test_version_2_a_limit_above_this_group_counts(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        "0::/pod/app\n",
        **{
            "cgroup.controllers": "",
            "pod/memory.max": f"{GIB}\n",
            "pod/memory.current": f"{GIB // 4}\n",
            "pod/app/memory.max": "max\n",
            "pod/app/memory.current": "10\n",
            "pod/app/cpu.max": "max 100000\n",
        },
    )
    device = host(root)
    assert device.memory_bytes == GIB
    assert device.memory_available == GIB - GIB // 4
    assert device.threads == len(os.sched_getaffinity(0))


def test_inside_a_container_the_path_of_the_host_is_not_mounted(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        "0::/docker/0123abcd\n",
        **{
            "cgroup.controllers": "",
            "memory.max": f"{3 * GIB}\n",
            "memory.current": "0\n",
        },
    )
    assert host(root).memory_bytes == 3 * GIB


@pytest.mark.parametrize("line", ["4:memory:/box\n", "4:cpu,memory:/box\n"])
def test_version_1_limits_memory(tmp_path: Path, line: str) -> None:
    root = _tree(
        tmp_path,
        line + "0::/\n",
        **{
            "memory/box/memory.limit_in_bytes": f"{GIB}\n",
            "memory/box/memory.usage_in_bytes": f"{GIB // 2}\n",
            "memory/box/memory.stat": f"total_inactive_file {GIB // 4}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": f"{GIB}\n",
        },
    )
    device = host(root)
    assert device.memory_bytes == GIB
    assert device.memory_available == GIB - GIB // 4


def test_version_1_limits_processors(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        "2:cpu,cpuacct:/box\n",
        **{"cpu/box/cpu.cfs_quota_us": "50000\n", "cpu/box/cpu.cfs_period_us": "100000\n"},
    )
    assert host(root).threads == 1


def test_version_1_without_quota_says_minus_one(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        "2:cpu:/\n",
        **{"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
    )
    assert host(root).threads == len(os.sched_getaffinity(0))


def test_a_full_group_leaves_nothing_and_not_less(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        "0::/\n",
        **{
            "cgroup.controllers": "",
            "memory.max": f"{GIB}\n",
            "memory.current": f"{GIB + 4096}\n",
        },
    )
    assert host(root).memory_available == 0


def test_affinity_limits_threads(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        device = host(tmp_path)
    finally:
        os.sched_setaffinity(0, before)
    assert device.threads == 1
    assert device.cores == 1


def test_the_processor_says_its_name_and_instructions(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Fast One\nflags\t\t: fpu avx2 avx512_bf16\n"
    )
    device = host(tmp_path)
    assert device.name == "Fast One"
    assert device.features == {"avx2", "avx512_bf16"}


def test_free_disk_of_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    expected = free.f_bavail * free.f_frsize
    # Others write meanwhile.
    assert abs(free_disk(tmp_path / "not" / "yet") - expected) < GIB


def test_memory_is_that_of_the_host_within_the_same_limits() -> None:
    total, available = memory()
    device = host()
    assert total == device.memory_bytes
    assert abs(available - device.memory_available) < GIB  # others work meanwhile


MEMINFO = "MemTotal: 9 kB\nSwapTotal:  4194304 kB\nSwapFree: 3145728 kB\n"


def test_swap_is_what_the_kernel_says_within_the_limits_of_groups(tmp_path: Path) -> None:
    root = _tree(tmp_path, "0::/\n", **{"cgroup.controllers": "", "memory.swap.max": "max\n"})
    assert swap(root) == (0, 0)
    (root / "proc/meminfo").write_text(MEMINFO)
    assert swap(root) == (4 * GIB, 3 * GIB)
    (root / "sys/fs/cgroup/memory.swap.max").write_text(f"{GIB}\n")
    assert swap(root) == (GIB, GIB)
    (root / "sys/fs/cgroup/memory.swap.current").write_text(f"{GIB // 4}\n")
    assert swap(root) == (GIB, GIB - GIB // 4)
    (root / "sys/fs/cgroup/memory.swap.max").write_text("0\n")
    assert swap(root) == (0, 0)


def test_kills_for_memory_are_counted_in_the_own_group_alone(tmp_path: Path) -> None:
    events = {
        "cgroup.controllers": "",
        "memory.events": "oom 9\noom_kill 9\n",
        "pod/memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 1\n",
    }
    assert oom_kills(_tree(tmp_path / "two", "0::/pod\n", **events)) == 3
    control = {"memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}
    assert oom_kills(_tree(tmp_path / "one", "4:memory:/box\n0::/\n", **control)) == 2
    assert oom_kills(tmp_path / "none") is None


def test_a_limit_of_addresses_is_known() -> None:
    script = "from workbench.hardware import address_limit; print(address_limit())"
    command = ["sh", "-c", 'ulimit -v 1000000; exec "$0" -c "$1"', sys.executable, script]
    answer = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert int(answer.stdout) == 1_024_000_000
    assert address_limit() is None
