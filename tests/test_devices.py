"""On which devices an engine runs: said by its own parameters, not by what its backend can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests import stock
from tests.faults import Faulty
from tests.faults import backend as played
from workbench import results, shared
from workbench.backends import make_spec
from workbench.backends.base import first_gpus
from workbench.bench import run_trial
from workbench.devices import gpus_of, gpus_of_engine, needs_gpu
from workbench.engine import Engine, Identity
from workbench.freshness import Here
from workbench.gpus import Gpu
from workbench.hardware import host
from workbench.quality import Quality
from workbench.sources import least_memory
from workbench.trial import new_record

GIB = 1 << 30
TWO = tuple(
    Gpu(index, f"card {index}", (9, 0), 80 * GIB, (20 + index) * GIB, f"GPU-{index}")
    for index in range(2)
)
LOAD = {"input_len": 1, "output_len": 2, "requests": 1, "warmup": 0}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("devices", "bench"):
        monkeypatch.setattr(f"workbench.{module}.list_gpus", lambda: TWO)


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.devices.list_gpus", tuple)


def _engine(spec: dict[str, Any], **limits: Any) -> Engine:
    return stock.publish(Identity(spec, "weights", {}), **limits)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"backend": "openvino"}, 0),
        ({"backend": "transformers"}, 1),
        ({"backend": "transformers", "device": "cuda"}, 1),
        ({"backend": "transformers", "device": "cpu"}, 0),
        ({"backend": "tensorrt_llm", "tp_size": 2}, 2),
        # Two are compiled at a time; the engine runs on one.
        ({"backend": "tensorrt_llm", "workers": 2}, 1),
    ],
)
def test_an_engine_runs_on_the_gpus_that_its_parameters_say(
    values: dict[str, Any], count: int
) -> None:
    assert tuple(gpus_of(make_spec(values))) == TWO[:count]
    assert tuple(gpus_of_engine(_engine(values))) == TWO[:count]


@pytest.mark.usefixtures("two_gpus")
def test_what_only_counts_when_it_is_loaded_decides_too() -> None:
    engine = _engine({"backend": "transformers"}, device="cpu")
    assert gpus_of_engine(engine) == ()
    assert tuple(gpus_of_engine(engine.under({"device": "cuda"}))) == TWO[:1]


@pytest.mark.parametrize(
    ("values", "needs"),
    [
        ({"backend": "tensorrt_llm"}, True),
        ({"backend": "transformers", "device": "cuda"}, True),
        ({"backend": "transformers"}, False),
        ({"backend": "openvino"}, False),
    ],
)
def test_only_what_cannot_run_on_a_processor_needs_a_gpu(
    values: dict[str, Any], needs: bool
) -> None:
    assert needs_gpu(make_spec(values)) is needs


@pytest.mark.usefixtures("two_gpus")
def test_an_engine_on_a_gpu_asks_for_room_there() -> None:
    eager = _engine({"backend": "transformers"}, device="auto")
    assert shared._free(eager) == ("GPU memory", 20 * GIB)
    assert "20.0 GiB of GPU memory are free" in shared.room_line(eager)
    kind, _ = shared._free(eager.under({"device": "cpu"}))
    assert kind == "memory"


@pytest.mark.usefixtures("two_gpus")
def test_the_hosts_memory_in_the_smoke_stage_says_nothing_of_a_gpus() -> None:
    engine = _engine({"backend": "transformers"}, device="cuda")
    smoke = {"build": {"smoke": {"ran": True, "memory_bytes": 7 * GIB}}}
    engine = replace(engine, manifest={**engine.manifest, **smoke})
    assert least_memory(engine) == engine.bytes
    # Its files are a recipe: the weights that it loads count, at the precision that it asks for.
    engine.manifest["model"]["parameters"] = 8 * GIB
    assert least_memory(engine) == 16 * GIB
    assert least_memory(engine.under({"dtype": "float32"})) == 32 * GIB
    assert least_memory(engine.under({"device": "cpu"})) == 7 * GIB


@pytest.mark.usefixtures("two_gpus")
def test_a_trial_on_a_gpu_names_it_and_says_what_is_taken_of_it(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(played, "BACKEND", replace(played.BACKEND, takes=first_gpus))
    spec = faulty.spec()
    record = run_trial(spec, LOAD).require().record
    assert record["environment"]["device"] == "card 0"
    assert record["environment"]["gpus"] == ["card 0"]
    assert record["environment"]["processor"] == host().name
    assert record["memory"]["gpu_bytes"] == 60 * GIB


@pytest.mark.usefixtures("two_gpus")
def test_a_trial_whose_runtime_sees_no_gpu_names_the_processor_and_stands() -> None:
    spec = make_spec(backend="transformers", threads=1, max_input_len=16, max_output_len=16)
    trial = run_trial(spec, LOAD).require()
    assert trial.record["environment"]["device"] == host().name
    assert "gpu_bytes" not in trial.record["memory"]
    assert run_trial(spec, LOAD, again=False).id == trial.id


def _standing(device: str, environment: dict[str, Any]) -> tuple[bool, str, str]:
    """Say whether a trial stands, and why not or why nobody can tell."""
    record = new_record("p", {}, {}) | {"status": "failed", "environment": environment}
    saved = results.save(record)
    found = Here().standing("p", make_spec(backend="transformers", device=device), Quality())
    return found.trial == saved, found.stale, found.unsure


@pytest.mark.usefixtures("two_gpus")
def test_a_trial_on_the_processor_is_stale_where_a_gpu_would_be_taken() -> None:
    old = {"device": "Abacus"}
    assert _standing("auto", old) == (False, "it was measured on Abacus, and this is card 0", "")
    assert _standing("auto", {"device": "card 0", "gpus": ["card 0"]}) == (True, "", "")
    assert _standing("cpu", {"device": host().name}) == (True, "", "")


@pytest.mark.usefixtures("no_gpus")
def test_a_trial_stands_where_the_gpu_that_it_needs_is_gone() -> None:
    told = {"device": "card 0", "gpus": ["card 0"]}
    why = "It runs on an NVIDIA GPU, and none was found here."
    assert _standing("cuda", told) == (True, "", why)
    here = f"it was measured on card 0, and this is {host().name}"
    assert _standing("auto", told) == (False, here, "")
