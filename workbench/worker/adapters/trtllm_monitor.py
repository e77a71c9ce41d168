"""TensorRT's progress monitor in builds of TensorRT-LLM, which offers no place for one.

The phases that it names cover only a part of the time; it serves as a sign of life, and to end a
build cleanly when nobody wants it any more.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from .channel import Channel

PATIENCE = 20.0
"""Seconds from the wish to stop to the end of the process, when TensorRT does not ask meanwhile."""


def watch_builds(channel: Channel) -> None:
    """Give every TensorRT build of this process a monitor; end with the channel.

    Where the builder has another shape than we know, the build simply goes unwatched.
    """
    stop = threading.Event()
    channel.exit_when_closed(before=stop.set, patience=PATIENCE)
    try:
        from tensorrt_llm.builder import Builder

        create = Builder.create_builder_config
    except (ImportError, AttributeError):
        return
    monitor = _monitor(channel, stop)

    def watched(*arguments: Any, **options: Any) -> Any:
        config = create(*arguments, **options)
        inner = getattr(config, "trt_builder_config", None)
        if inner is not None:
            inner.progress_monitor = monitor
        return config

    Builder.create_builder_config = watched


def _monitor(channel: Channel, stop: threading.Event) -> Any:
    """Return a monitor; it has to live as long as the builds, which its closure takes care of."""
    import tensorrt

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        """Tells the phase now and then; called from several threads of TensorRT."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}
            self._last = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._last > 0.5:
                self._last = now
                total = self._steps.get(phase_name)
                told = f"{phase_name}, step {step + 1}" + (f" of {total}" if total else "")
                channel.send(event="fact", values={"tensorrt_phase": told})
            return not stop.is_set()

    return Monitor()
