"""A form knows this machine's GPUs without waiting for the driver."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.faults import until
from workbench import gpu_reader
from workbench.backends import make_spec
from workbench.errors import ToolchainError
from workbench.gpu_reader import GpuReader
from workbench.gpus import Gpu
from workbench.widgets import form as form_module
from workbench.widgets.form import BuildForm

BEFORE = Gpu(0, "NVIDIA H200", (9, 0), 140 << 30, 100 << 30, "GPU-0")
AFTER = replace(BEFORE, memory_free=50 << 30)


class Driver:
    """Answers at once the first time, later when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self.fails = False

    def __call__(self) -> Sequence[Gpu]:
        self.asked += 1
        if self.asked == 1:
            return (BEFORE,)
        assert self.gate.wait(20.0)
        if self.fails:
            raise ToolchainError("The NVIDIA driver does not answer.")
        return (AFTER,)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setattr(gpu_reader, "FRESH", 0.0)
    return Driver()


def test_nobody_waits_for_a_driver_that_was_asked_before(driver: Driver) -> None:
    reader = GpuReader(driver)
    assert [reader.read() for _ in range(5)] == [(BEFORE,)] * 5
    until(lambda: driver.asked == 2)
    driver.gate.set()
    until(lambda: reader.read() == (AFTER,))


def test_what_was_known_holds_where_the_driver_does_not_answer_later(driver: Driver) -> None:
    driver.fails = True
    driver.gate.set()
    reader = GpuReader(driver)
    until(lambda: reader.read() == (BEFORE,) and driver.asked > 2)
    assert reader.read() == (BEFORE,)


def test_what_was_read_a_moment_ago_is_not_asked_again() -> None:
    driver = Driver()
    reader = GpuReader(driver)
    for _ in range(5):
        reader.read()
    assert driver.asked == 1


def test_a_driver_that_never_answered_is_told() -> None:
    def fail() -> Sequence[Gpu]:
        raise ToolchainError("The NVIDIA driver does not answer.")

    with pytest.raises(ToolchainError):
        GpuReader(fail).read()


def test_a_change_of_the_form_is_answered_while_the_driver_is_busy(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_module, "GpuReader", lambda: GpuReader(driver))
    form = BuildForm(make_spec({"backend": "tensorrt_llm"}))
    form.set(max_batch_size=3)
    form.set(max_batch_size=4)
    assert form.plan.device.memory_available == 100 << 30
    driver.gate.set()
    until(lambda: form.plan.device.memory_available == 50 << 30)
