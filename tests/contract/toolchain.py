"""A toolchain of its own for the stand-in: a virtual environment, as a user's would be."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.contract import fields

STANDIN = Path(__file__).parent / "standin"
TENSORRT = "10.14.1"

# A release without engines: the modules are not there, and neither is tensorrt. Which one is
# played is known only when an interpreter starts, as WORKBENCH_STANDIN_VERSION may say it.
CHOICE = """
import os, runpy, sys
has_engines = runpy.run_path({fields!r})["has_engines"]
engines = has_engines(os.environ.get("WORKBENCH_STANDIN_VERSION") or {version!r})
sys.path.append({whole!r} if engines else {torch!r})
"""
TORCH_PACKAGE = '''\
"""The stand-in for a tensorrt_llm that has no engines."""

from . import _settings

_settings.fail_at_import()

from . import quantization
from .llmapi import LLM, KvCacheConfig
from .logger import logger
from .mapping import Mapping
from .sampling_params import SamplingParams
from .version import __version__

print(_settings.line("banner", version=__version__), flush=True)
'''


def make_toolchain(directory: Path, python: str = sys.executable, version: str = "1.2.1") -> Path:
    """Make a virtual environment in `directory`, and return its interpreter.

    It has the stand-in under the names and versions of the real packages, the console script
    trtllm-build and, when `python` is the running interpreter, the packages of this environment:
    a path of a .pth file has its own .pth files ignored, so an editable workbench is not among
    them, as it is not in a user's toolchain. A release without engines has no tensorrt beside it,
    no trtllm-build and none of `fields.ENGINE_MODULES`.
    """
    command = [python, "-m", "venv", "--without-pip", "--symlinks", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    found = directory / "bin" / "python"
    (packages,) = directory.glob("lib/python3.*/site-packages")
    _install_standin(packages, directory / "torch", version)
    if python == sys.executable:
        paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        # Later in the alphabet, so that the stand-in comes first.
        (packages / "standin_others.pth").write_text("\n".join(paths) + "\n")
    distributions = {"tensorrt_llm": version}
    if fields.has_engines(version):
        distributions["tensorrt"] = TENSORRT
        _write_script(directory / "bin" / "trtllm-build", found)
    for name, number in distributions.items():
        folder = packages / f"{name}-{number}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
        (folder / "METADATA").write_text(text)
    return found


def _install_standin(packages: Path, torch: Path, version: str) -> None:
    """Let every start of the interpreter choose the whole stand-in, or what `torch` has of it."""
    _link(STANDIN / "tensorrt_llm", torch / "tensorrt_llm", "")
    (torch / "tensorrt_llm" / "__init__.py").write_text(TORCH_PACKAGE)
    places = {"fields": str(Path(fields.__file__)), "whole": str(STANDIN), "torch": str(torch)}
    (packages / "standin_choice.py").write_text(CHOICE.format(version=version, **places))
    (packages / "standin.pth").write_text("import standin_choice\n")


def _link(source: Path, target: Path, inside: str) -> None:
    """Link the modules of a package that a release without engines has."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        name = f"{inside}{path.stem}"
        if name in fields.ENGINE_MODULES or path.stem == "__pycache__":
            continue
        if path.is_dir():
            _link(path, target / path.name, f"{name}.")
        elif inside or path.name != "__init__.py":
            (target / path.name).symlink_to(path)


def _write_script(script: Path, python: Path) -> None:
    body = "import sys\nfrom tensorrt_llm.commands.build import main\n"
    body += 'if __name__ == "__main__":\n    sys.exit(main())\n'
    script.write_text(f"#!{python}\n{body}")
    script.chmod(0o755)
