"""The logger: to standard output, silent below errors until somebody sets a level."""

from __future__ import annotations

import os
import time

from ._settings import interface, line, wording

_RANK = {
    name: 40 - 10 * max(place - 1, 0) if place < 5 else 0
    for place, name in enumerate(interface.LOG_LEVELS)
}
_MARKS = {"[E]": 40, "[W]": 30, "[I]": 20, "[V]": 10}


class Logger:
    """Lines such as `[11/16/2025-00:05:45] [TRT-LLM] [I] ...`."""

    def __init__(self) -> None:
        from_environment = os.environ.get("TLLM_LOG_LEVEL", "").lower()
        self._fixed = bool(from_environment)
        self.level = from_environment if from_environment in _RANK else "error"

    def set_level(self, level: str) -> None:
        """Show lines from `level` upward; TLLM_LOG_LEVEL has the last word."""
        if self._fixed:
            self.warning(
                f"Logger level already set from environment. Discard new verbosity: {level}"
            )
            return
        self.level = level

    def log(self, mark: str, message: str, source: str = "TRT-LLM") -> None:
        """Print one line, if its level is shown."""
        if _MARKS[mark] >= _RANK[self.level]:
            print(f"[{time.strftime(wording.STAMP)}] [{source}] {mark} {message}", flush=True)

    def error(self, message: str) -> None:
        """Print an error."""
        self.log("[E]", message)

    def warning(self, message: str) -> None:
        """Print a warning."""
        self.log("[W]", message)

    def info(self, message: str) -> None:
        """Print information."""
        self.log("[I]", message)

    def debug(self, message: str) -> None:
        """Print detail."""
        self.log("[V]", message)

    def say(self, name: str, /, **values: object) -> None:
        """Print a line of the contract as information."""
        self.info(line(name, **values))

    def warn(self, name: str, /, **values: object) -> None:
        """Print a line of the contract as a warning."""
        self.warning(line(name, **values))

    def trt(self, name: str, mark: str = "[I]", /, **values: object) -> None:
        """Print a line of TensorRT's own."""
        self.log(mark, line(name, **values), "TRT")


logger = Logger()


def runtime_line(text: str, mark: str = "INFO") -> None:
    """Print a line of the C++ runtime, which stamps nothing and knows no level of ours."""
    print(f"[TensorRT-LLM][{mark}] {text}", flush=True)
