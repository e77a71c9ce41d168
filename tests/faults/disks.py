"""Small and read-only disks, each in a mount namespace of its own: no privilege is needed, and
nothing is left mounted (mount_namespaces(7), user_namespaces(7))."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]

SMALL = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && exec "${@:3}"'
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "${@:2}"'


def on_small_disk(folder: Path, size: str, script: str, *words: str) -> str:
    """Run a script where `folder` is a disk of that size, such as "4m"; return what it prints.

    Its first argument is the folder; WORKBENCH_HOME is "home" within.
    """
    folder.mkdir(exist_ok=True)
    return _run(SMALL, [size, str(folder)], script, folder / "home", folder, *words)


def on_read_only_disk(home: Path, script: str, *words: str) -> str:
    """Run a script where nothing in a home can be written; return what it prints."""
    return _run(READ_ONLY, [str(home)], script, home, *words)


def _run(mount: str, places: list[str], script: str, home: Path, *words: str | Path) -> str:
    python = [sys.executable, "-c", textwrap.dedent(script), *map(str, words)]
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", mount, "bash", *places]
    answer = subprocess.run(
        [*command, *python],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"WORKBENCH_HOME": str(home)},
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout
