"""A stand-in for TensorRT's Python module: its version, and the interface of progress monitors."""

from __future__ import annotations

import os

__version__ = os.environ.get("WORKBENCH_STANDIN_TENSORRT", "10.14.1.48")


class IProgressMonitor:
    """What a monitor overrides; `step_complete` returns False to cancel the build."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Hear that a phase begins."""

    def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002 - for others
        """Hear that a step is done, and say whether to go on."""
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Hear that a phase ends."""
