"""Drive the stand-in's toolchain as a user would: by scripts and by the console script."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

from workbench.build import DEMO_MODEL

Outcome = subprocess.CompletedProcess[str]

CONVERT = """
import os, sys
from tensorrt_llm import Mapping
from tensorrt_llm.models import AutoModelForCausalLM
model, out, tp, pp = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.makedirs(out, exist_ok=True)
for rank in range(tp * pp):
    mapping = Mapping(world_size=tp * pp, rank=rank, tp_size=tp, pp_size=pp)
    made = AutoModelForCausalLM.from_hugging_face(model, mapping=mapping)
    made.save_checkpoint(out, save_config=rank == 0)
"""


class Toolchain:
    """An interpreter with the stand-in, and a folder to work in."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder

    def run(self, *command: object, **settings: str) -> Outcome:
        """Run the interpreter; settings are WORKBENCH_STANDIN_... in lower case."""
        played = {f"WORKBENCH_STANDIN_{name.upper()}": text for name, text in settings.items()}
        environment = {**os.environ, "WORKBENCH_STANDIN_PACE": "0.05", **played}
        return subprocess.run(
            [str(self.python), *map(str, command)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def script(self, text: str, *arguments: object, **settings: str) -> Outcome:
        """Run a script from a file, which spawned processes read again, and must find guarded."""
        path = self.folder / "script.py"
        path.write_text('if __name__ == "__main__":\n' + textwrap.indent(text, "    "))
        return self.run(path, *arguments, **settings)

    def convert(self, tp: int = 1, pp: int = 1, **settings: str) -> Path:
        """Convert the demo model; return the checkpoint."""
        out = self.folder / f"checkpoint-{tp}-{pp}"
        done = self.script(CONVERT, DEMO_MODEL, out, tp, pp, **settings)
        assert done.returncode == 0, done.stderr
        return out

    def build(self, checkpoint: Path, *flags: object, **settings: str) -> Outcome:
        """Run trtllm-build through its console script, into `engine`."""
        command = self.python.parent / "trtllm-build"
        paths = ("--checkpoint_dir", checkpoint, "--output_dir", self.folder / "engine")
        return self.run(command, *paths, *flags, **settings)
