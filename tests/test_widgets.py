"""Panels in-process: derived controls, findings, errors where a person sees them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import pytest

from workbench.backends import make_spec
from workbench.backends.openvino import OpenVinoSpec
from workbench.engine import Engine
from workbench.errors import SpecError
from workbench.spec import parameters_of
from workbench.widgets.build import BuildPanel
from workbench.widgets.form import BuildForm
from workbench.widgets.keys import Keys
from workbench.widgets.progress import tail
from workbench.widgets.stream import StreamPanel


def _until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _control(form: BuildForm, name: str) -> widgets.Widget:
    return form._fields[name].control


def _error(panel: object) -> str:
    return panel._error_text  # type: ignore[attr-defined]


def test_the_form_has_a_control_for_every_parameter_and_gives_the_spec_back() -> None:
    spec = make_spec({"quantization": "int4", "max_seq_len": 700, "symmetric": True})
    form = BuildForm(spec)
    assert set(form._fields) == set(parameters_of(OpenVinoSpec))
    assert form.spec == spec


def test_every_control_has_label_and_help() -> None:
    for name, field in BuildForm()._fields.items():
        control = field.control
        assert control.description.startswith(name)
        assert control.tooltip


def test_a_change_shows_findings_at_once() -> None:
    form = BuildForm()
    heard: list[object] = []
    form.on_spec(heard.append)
    _control(form, "max_input_len").value = "4000"
    shown = form._fields["max_seq_len"]._message.value
    assert "beyond the model&#x27;s context of 2048" in shown
    assert "cannot work" in shown
    assert "cannot work" in form.plain()
    assert heard
    with pytest.raises(SpecError, match="beyond the model's context"):
        form.check()


def test_wrong_values_are_sentences_in_the_form() -> None:
    form = BuildForm()
    _control(form, "threads").value = "many"
    assert form.faults["threads"] == (
        "threads must be a whole number from 1 to 1024, or none (what OpenVINO chooses for this "
        "processor); got 'many'."
    )
    _control(form, "threads").value = "2"
    assert form.faults == {}
    assert form.values["threads"] == 2
    _control(form, "model").value = "/nowhere/at/all"
    assert "/nowhere/at/all" in form.faults["model"]


@pytest.mark.parametrize("value", ["1.5", "0", "100000", ""])
def test_numbers_are_refused_and_not_bent(value: str) -> None:
    form = BuildForm()
    _control(form, "max_batch_size").value = value
    fault = form.faults["max_batch_size"]
    assert fault.startswith("max_batch_size must be a whole number from 1 to 256; got ")


def test_every_label_has_its_explanation() -> None:
    form = BuildForm()
    (keys,) = [child for child in form.children if isinstance(child, Keys)]
    for name, parameter in parameters_of(OpenVinoSpec).items():
        assert keys.help[_control(form, name).description] == parameter.help


def test_what_a_model_is_called_is_shown_as_text() -> None:
    form = BuildForm()
    _control(form, "model").value = "<script>alert(1)</script>"
    shown = form._fields["model"]._message.value
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_headless_the_build_panel_finds_its_engine_and_prints_it(stocked: Engine) -> None:
    spec = make_spec({**stocked.manifest["identity"]["spec"], "model": "demo"})
    panel = BuildPanel(spec, start=True)
    assert panel.engine is not None
    assert panel.engine.key == stocked.key
    assert stocked.key in panel.plain()
    assert "the same weights" in panel.plain()


def test_headless_without_a_build_it_says_what_is_built_already(stocked: Engine) -> None:
    spec = make_spec({**stocked.manifest["identity"]["spec"], "model": "demo"})
    for source in (spec, BuildForm(spec)):
        panel = BuildPanel(source)
        assert panel.engine is None
        assert f"The engine {stocked.key} is the one that you ask for." in panel.plain()
        assert "No engine was taken yet." in panel.plain()
    assert BuildPanel(BuildForm(spec.replace(quantization="int8"))).plain() == "No engine yet."


def test_headless_a_refused_build_raises(home: Path) -> None:
    with pytest.raises(SpecError, match="beyond the model's context"):
        BuildPanel(make_spec({"max_input_len": 4000}), start=True)


@pytest.mark.usefixtures("clicking")
def test_a_refused_build_is_a_sentence_in_the_panel(home: Path) -> None:
    panel = BuildPanel(make_spec({"max_input_len": 4000}), start=True)
    assert "beyond the model's context" in _error(panel)
    assert "alert" in panel._error.value


@pytest.mark.usefixtures("clicking")
def test_build_watch_cancel_and_build_again(home: Path) -> None:
    form = BuildForm(make_spec({"max_batch_size": 7}))
    panel = BuildPanel(form, start=True)
    _until(lambda: "import torch" in panel.progress.stages.value)
    assert panel._start_button.disabled
    assert "last sign of life" in panel.progress.state.value
    # Running the cell again makes another panel on the same job.
    assert BuildPanel(form, start=True).job_id == panel.job_id
    panel._cancel_button.click()
    _until(lambda: "cancelled" in panel.progress.state.value)
    _until(lambda: not panel._start_button.disabled)
    assert _error(panel) == ""
    assert panel.engine is None
    # What was running when it ended is not shown as if it had been finished.
    assert "&#10007;" in panel.progress.stages.value


@pytest.mark.usefixtures("clicking")
def test_stream_stop_and_stream_again(stocked: Engine) -> None:
    panel = StreamPanel(stocked.key, prompt="a", max_tokens=256)
    _until(lambda: not panel._send_button.disabled)
    panel._options["ignore_eos"].value = True
    panel._send_button.click()
    assert panel._session is not None
    # Held while we reach for the button: 256 tokens take a fifth of a second.
    os.kill(panel._session.pid, signal.SIGSTOP)
    panel._stop_button.click()
    os.kill(panel._session.pid, signal.SIGCONT)
    record = panel.wait(10)
    assert record["finish_reason"] == "cancelled"
    assert record["output_tokens"] < 256
    assert panel._view.text == record["text"]
    panel._options["max_tokens"].value = "5"
    panel._send_button.click()
    assert panel.wait(10)["output_tokens"] == 5
    panel._close_button.click()
    _until(lambda: "Send loads it again" in panel._title.value)
    assert panel._session is None
    panel._send_button.click()
    assert panel.wait(20)["output_tokens"] == 5
    panel.unload()


@pytest.mark.usefixtures("clicking")
def test_pressing_build_twice_leaves_cancel_to_press(home: Path) -> None:
    panel = BuildPanel(make_spec({"max_batch_size": 13}), start=True)
    panel.start()
    _until(lambda: "import torch" in panel.progress.stages.value)
    time.sleep(0.5)
    assert not panel._cancel_button.disabled
    assert panel._start_button.disabled
    panel.cancel()
    _until(lambda: "cancelled" in panel.progress.state.value)


@pytest.mark.usefixtures("clicking")
def test_sending_while_one_streams_is_a_sentence(stocked: Engine) -> None:
    panel = StreamPanel(stocked.key, prompt="a", max_tokens=256, ignore_eos=True)
    _until(lambda: not panel._send_button.disabled)
    assert panel._session is not None
    os.kill(panel._session.pid, signal.SIGSTOP)
    panel.send()
    panel.send()
    os.kill(panel._session.pid, signal.SIGCONT)
    assert "A generation is running" in _error(panel)
    panel.stop()
    panel.wait(10)
    panel.unload()


def test_set_refuses_what_the_parameter_does_not_take() -> None:
    form = BuildForm()
    form.set(quantization="int4", max_seq_len=700, revision=None)
    assert (form.values["quantization"], form.values["max_seq_len"]) == ("int4", 700)
    with pytest.raises(SpecError, match="quantization must be one of"):
        form.set(quantization="bogus")
    with pytest.raises(SpecError, match="max_batch_size must be a whole number from 1 to 256"):
        form.set(max_batch_size=100_000)


@pytest.mark.usefixtures("clicking")
def test_wrong_options_and_refused_prompts_are_sentences(stocked: Engine) -> None:
    panel = StreamPanel(stocked.key, prompt="a")
    _until(lambda: not panel._send_button.disabled)
    panel._options["temperature"].value = "hot"
    panel._send_button.click()
    assert "temperature must be a number from 0 to 5; got 'hot'" in _error(panel)
    panel._options["temperature"].value = "0"
    panel._prompt.value = "word " * 200
    panel._send_button.click()
    _until(lambda: "max_input_len" in _error(panel))
    assert panel._view._saved["phase"] == "failed"
    panel.unload()


@pytest.mark.usefixtures("clicking")
def test_a_dead_worker_is_a_sentence_and_send_loads_again(stocked: Engine) -> None:
    panel = StreamPanel(stocked.key, prompt="a", max_tokens=256, ignore_eos=True)
    _until(lambda: not panel._send_button.disabled)
    assert panel._session is not None
    # Held, so that it dies before it has answered.
    os.kill(panel._session.pid, signal.SIGSTOP)
    panel._send_button.click()
    panel._session._worker.kill()
    _until(lambda: "was killed" in _error(panel))
    assert panel._idle.wait(10)
    panel._options["max_tokens"].value = "5"
    panel._send_button.click()
    assert panel.wait(20)["output_tokens"] == 5
    assert _error(panel) == ""
    panel.unload()


def test_headless_the_stream_panel_waits_and_prints(stocked: Engine) -> None:
    panel = StreamPanel(stocked, start=True, max_tokens=20)
    assert panel.record is not None
    assert panel.record["output_tokens"] <= 20
    assert panel.record["text"] in panel.plain()
    assert "TTFT" in panel.plain()
    assert panel._repr_mimebundle_()["text/plain"] == panel.plain()
    panel.unload()


def test_a_log_is_text(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"<b>bold</b>\n 10%\r 20%\r 30%\n\xff\n")
    shown = tail(log)
    assert "&lt;b&gt;" in shown
    assert "30%" in shown
    assert "10%" not in shown
    assert tail(tmp_path / "none") == "<pre></pre>"
