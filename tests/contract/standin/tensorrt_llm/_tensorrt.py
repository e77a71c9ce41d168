"""The part of a build that is TensorRT's: its lines, its gaps, its monitor, its failures."""

from __future__ import annotations

import signal
import time
from typing import Any

from ._settings import FAIL, die, rest
from .logger import logger

# The phases that a monitor hears of; TensorRT's own names change from version to version.
PHASES = (("Graph optimization", 4), ("Tactic selection", 10), ("Memory planning", 2))


class TrtConfig:
    """TensorRT's builder configuration, as far as it is used."""

    def __init__(self, entries: int = 0) -> None:
        self.progress_monitor: Any = None
        self.entries = entries
        self.known = entries > 0


def compile_plan(config: dict[str, Any], build: Any, trt: TrtConfig) -> bool:
    """Compile; False when it failed or was cancelled, after saying why as TensorRT does."""
    begin = time.time()
    layers = config["num_hidden_layers"]
    logger.trt("timing_cache_in_use")
    logger.trt("compiler")
    if trt.progress_monitor:
        trt.progress_monitor.phase_start("Building engine", None, len(PHASES))
    built = True
    for step, (name, count) in enumerate(PHASES):
        # With the timings of an earlier build the longest phase is short.
        share = (0.1, 0.05 if trt.known else 0.25, 0.05)[step]
        built = built and _phase(trt.progress_monitor, name, count, share)
        if built and trt.progress_monitor:
            built = trt.progress_monitor.step_complete("Building engine", step)
        if step == 0:
            logger.trt("detected", inputs=13 + layers)
            if not _survives(build):
                built = False
    if trt.progress_monitor:
        trt.progress_monitor.phase_finish("Building engine")
    if not built:
        return False
    _memory_plan(config, build)
    logger.trt("compiler_run")
    logger.trt("generated", seconds=time.time() - begin)
    logger.trt("peak_trt")
    trt.entries = max(trt.entries, 3 * layers)
    return True


def _phase(monitor: Any, name: str, count: int, share: float) -> bool:
    if monitor:
        monitor.phase_start(name, "Building engine", count)
    going = True
    for step in range(count):
        rest(share / count)
        if monitor and going:
            going = monitor.step_complete(name, step)
        if not going:
            break
    if monitor:
        monitor.phase_finish(name)
    return going


def _survives(build: Any) -> bool:
    """Play the failure that is asked for, in the middle of the build."""
    if FAIL == "segfault":
        die(signal.SIGSEGV)
    while FAIL == "hang":
        time.sleep(1)
    if FAIL == "gpu_oom":
        wanted = 16654532608
        logger.trt("oom", "[E]", bytes=wanted)
        logger.trt("oom_request", "[W]", bytes=wanted)
        logger.trt("oom_write", "[E]", bytes=wanted)
        return False
    return FAIL != "assertion"


def _memory_plan(config: dict[str, Any], build: Any) -> None:
    steps = 50 * config["num_hidden_layers"] + 10
    # GPT-2 showed 15.4 kB a token; other sizes are scaled by the width.
    activation = build.max_num_tokens * config["hidden_size"] * 20
    weights = config["hidden_size"] * config["vocab_size"] * 2
    weights += config["num_hidden_layers"] * 12 * config["hidden_size"] ** 2 * 2
    logger.trt("host_memory")
    logger.trt("device_memory")
    logger.trt("scratch", bytes=activation // 5)
    logger.trt("blocks", steps=steps)
    logger.trt("blocks_done", steps=steps, bytes=activation + 512)
    logger.trt("activation", bytes=activation)
    logger.trt("weights", bytes=weights)
