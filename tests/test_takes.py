"""Which GPUs a spec takes: they are waited for, looked at, and named as what it runs on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workbench.backends import NAMES, get_backend, make_spec
from workbench.build import DEMO_MODEL, Plan
from workbench.correction import corrected_need
from workbench.engine import Identity
from workbench.gpus import Gpu
from workbench.history import family_file
from workbench.journal import Journal
from workbench.model import Model
from workbench.recipe import _Work, slots
from workbench.toolchain import Toolchain

GIB = 1 << 30
TWO = tuple(
    Gpu(index, f"card {index}", (9, 0), 80 * GIB, (index + 1) << 10, f"GPU-{index}")
    for index in range(2)
)


def _titles(monkeypatch: pytest.MonkeyPatch, gpus: Sequence[Gpu], **values: Any) -> list[str]:
    monkeypatch.setattr("workbench.recipe.list_gpus", lambda: tuple(gpus))
    spec = make_spec(values)
    return [slot.title for slot in slots(get_backend(spec.backend), spec)]


@pytest.mark.parametrize(
    ("device", "gpus", "titles"),
    [
        ("auto", TWO, ["GPU 0 (card 0)"]),
        ("cuda", TWO, ["GPU 0 (card 0)"]),
        ("cpu", TWO, ["the processor"]),
        ("auto", (), ["the processor"]),
    ],
)
def test_eager_generation_waits_for_what_it_runs_on(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: Sequence[Gpu], titles: list[str]
) -> None:
    assert _titles(monkeypatch, gpus, backend="transformers", device=device) == titles


@pytest.mark.parametrize("values", [{"tp_size": 2}, {"pp_size": 2}, {"workers": 2}])
def test_ranks_and_workers_take_the_first_gpus(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, int]
) -> None:
    names = ["GPU 0 (card 0)", "GPU 1 (card 1)"]
    assert _titles(monkeypatch, TWO, backend="tensorrt_llm", **values) == names
    assert _titles(monkeypatch, TWO, backend="tensorrt_llm") == names[:1]


def test_a_backend_for_processors_does_not_ask_for_gpus() -> None:
    def refuse() -> Sequence[Gpu]:
        pytest.fail("asking takes time, and the driver may be broken")

    openvino, eager = make_spec({}), make_spec({"backend": "transformers", "device": "cpu"})
    for spec in (openvino, eager):
        assert get_backend(spec.backend).takes(spec, refuse) == ()
        assert Plan.make(spec, here=refuse).device.kind == "cpu"


@pytest.mark.parametrize("name", ["transformers", "tensorrt_llm_torch"])
def test_a_full_gpu_is_told_before_a_recipe_is_tried(name: str) -> None:
    spec = make_spec({"backend": name})
    full = Plan.make(spec, here=lambda: TWO)
    assert full.device.name == "card 0"
    assert any("on the GPU; 1.00 KiB of 80.0 GiB are free on card 0" in f.reason for f in full.room)
    free = Gpu(0, "card", (9, 0), 80 * GIB, 79 * GIB, "GPU-0")
    assert Plan.make(spec, here=lambda: (free,)).room == ()


def test_ranks_that_are_never_loaded_here_need_no_room_for_that() -> None:
    free, full = Gpu(0, "free", (9, 0), 80 * GIB, 79 * GIB, "GPU-0"), TWO[1]

    def told(tp_size: int) -> bool:
        spec = make_spec({"backend": "tensorrt_llm", "tp_size": tp_size})
        plan = Plan.make(spec, here=lambda: (free, full))
        return any("free on card 1 (GPU 1)" in finding.reason for finding in plan.room)

    # Of four, with two GPUs, one after another is built on the first; two are tried here.
    assert told(2)
    assert not told(4)
    assert not told(1)


@pytest.mark.parametrize(("smoke", "ranks"), [(True, 2), (False, 0)])
def test_a_job_asks_for_room_on_the_gpus_that_it_will_load(
    monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path, smoke: bool, ranks: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("workbench.recipe.list_gpus", lambda: TWO)
    monkeypatch.setattr(
        "workbench.recipe.check_now",
        lambda _, need, gpus, **_spare: asked.append((need.ranks, len(gpus))),
    )
    spec = make_spec({"backend": "tensorrt_llm", "tp_size": 2})
    (tmp_path / "job").mkdir()
    toolchain, journal = Toolchain.parse(sys.executable), Journal(tmp_path / "job")
    work = _Work(spec, get_backend(spec.backend), toolchain, journal)
    identity = Identity({"backend": spec.backend}, "weights", {})
    work.make_room(Model.read(DEMO_MODEL), identity, smoke=smoke)
    assert asked == [(ranks, 2), (ranks, 2)]
    assert work.device == "card 0"


def test_without_a_gpu_eager_generation_needs_no_memory_of_one() -> None:
    plan = Plan.make(make_spec({"backend": "transformers"}), here=tuple)
    assert plan.need is not None
    assert plan.need.device is None
    assert plan.device.kind == "cpu"


def test_the_peak_of_trying_a_recipe_does_not_correct_what_loading_takes(home: Path) -> None:
    spec = make_spec({"backend": "tensorrt_llm_torch"})
    plan = Plan.make(spec, here=lambda: TWO)
    assert plan.need is not None
    family = ("tensorrt_llm_torch", "", plan.model.parameters)
    line = (
        '{"job": "j", "time": 1.0, "parameters": %d, "stages": {}, "device": "card 0",'
        ' "peak_gpu_memory_bytes": 70000000000, "predicted": {"GPU memory": [1, 1000000]}}\n'
    )
    path = family_file(*family[:2])
    path.parent.mkdir(parents=True)
    path.write_text(line % plan.model.parameters)
    assert corrected_need(plan.need, *family, "card 0").device == plan.need.device


def test_every_backend_that_needs_gpus_takes_some() -> None:
    for name in NAMES:
        backend = get_backend(name)
        taken = backend.takes(make_spec({"backend": name}), lambda: TWO)
        assert bool(taken) == (backend.uses_gpu or name == "transformers")
