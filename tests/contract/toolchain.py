"""A toolchain of its own for the stand-in: a virtual environment, as a user's would be."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

STANDIN = Path(__file__).parent / "standin"
TENSORRT = "10.14.1"


def make_toolchain(directory: Path, python: str = sys.executable, version: str = "1.2.1") -> Path:
    """Make a virtual environment in `directory`, and return its interpreter.

    It has the stand-in under the names and versions of the real packages, the console script
    trtllm-build and, when `python` is the running interpreter, the packages of this environment:
    a path of a .pth file has its own .pth files ignored, so an editable workbench is not among
    them, as it is not in a user's toolchain.
    """
    command = [python, "-m", "venv", "--without-pip", "--symlinks", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    found = directory / "bin" / "python"
    (packages,) = directory.glob("lib/python3.*/site-packages")
    paths = [str(STANDIN)]
    if python == sys.executable:
        paths += dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "standin.pth").write_text("\n".join(paths) + "\n")
    for name, number in (("tensorrt_llm", version), ("tensorrt", TENSORRT)):
        folder = packages / f"{name}-{number}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
        (folder / "METADATA").write_text(text)
    script = directory / "bin" / "trtllm-build"
    body = "import sys\nfrom tensorrt_llm.commands.build import main\n"
    body += 'if __name__ == "__main__":\n    sys.exit(main())\n'
    script.write_text(f"#!{found}\n{body}")
    script.chmod(0o755)
    return found
