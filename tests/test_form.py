"""The build form in-process: fields, findings and remedies, presets, devices, specs as text."""

from __future__ import annotations

import html
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pytest

from tests.benchmarks.sparse_model import make_sparse_model
from tests.faults import Faulty, fault, job_of
from workbench import model_reader, spec_text
from workbench.backends import NAMES, make_spec
from workbench.build import DEMO_MODEL, Plan
from workbench.engine import Engine
from workbench.errors import InputError, ModelError, SpecError
from workbench.gpu_table import find
from workbench.model import Model
from workbench.model_card import licence_of
from workbench.model_reader import ModelReader
from workbench.presets import PRESETS, Preset, presets_of
from workbench.rules import Finding, refuse
from workbench.spec import BuildSpec, parameters_of
from workbench.widgets.build import BuildPanel
from workbench.widgets.fields import ROOM, STYLE, Field
from workbench.widgets.form import BuildForm

H200 = "H200 SXM 141GB"


def _type(form: BuildForm, name: str, text: object) -> None:
    """Change a control as a person does."""
    form._fields[name].control.value = text


def _message(form: BuildForm, name: str) -> str:
    return str(form._fields[name]._message.value)


def _words(form: BuildForm) -> str:
    """Return the plain text of a form without what aligns it."""
    return " ".join(form.plain().split())


def _classes(field: Field) -> set[str]:
    return set(field._dom_classes)


# --- fields


def test_a_wrong_value_is_said_at_its_field_and_counted_at_the_top() -> None:
    form = BuildForm()
    _type(form, "threads", "many")
    _type(form, "max_batch_size", "")
    assert "threads must be a whole number" in _message(form, "threads")
    assert "got nothing." in _message(form, "max_batch_size")
    assert "invalid" in _classes(form._fields["threads"])
    assert "2 fields need attention: max_batch_size, threads" in form._status.value
    _type(form, "threads", "2")
    _type(form, "max_batch_size", "4")
    assert form.faults == {}
    assert "invalid" not in _classes(form._fields["threads"])
    assert "attention" not in form._status.value


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_batch_size", "0"), ("max_batch_size", "1.5"), ("threads", "many"), ("max_seq_len", "1")],
)
def test_form_and_record_refuse_with_the_same_sentence(name: str, text: str) -> None:
    form = BuildForm()
    _type(form, name, text)
    with pytest.raises(SpecError) as caught:
        make_spec({name: form.values[name]})
    assert form.faults[name] == str(caught.value)
    assert "(" not in str(caught.value).partition("; got ")[2]


def test_findings_stand_at_their_fields_and_a_click_mends_them() -> None:
    form = BuildForm()
    _type(form, "max_input_len", "4000")
    field = form._fields["max_seq_len"]
    assert "beyond the model&#x27;s context of 2048" in _message(form, "max_seq_len")
    assert "remedied" in _classes(field)
    assert field._remedy.tooltip == "Set max_seq_len to 2048"
    field._remedy.click()
    assert form.values["max_seq_len"] == 2048
    assert "beyond" not in _message(form, "max_seq_len")


def test_a_remedy_may_change_several_fields() -> None:
    form = BuildForm(make_spec({"backend": "tensorrt_llm", "max_output_len": 512}))
    form._fields["max_output_len"]._remedy.click()
    assert (form.values["max_seq_len"], form.values["max_output_len"]) == (1536, None)


def test_the_remedy_of_the_worst_finding_is_offered() -> None:
    field = BuildForm()._fields["max_batch_size"]
    note = Finding("warn", "max_batch_size", "it is large.", "Use 2.", (("max_batch_size", 2),))
    worst = replace(note, level="refuse", changes=(("max_batch_size", 1),))
    for findings in ([note, worst], [worst, note]):
        field.say("", findings)
        assert field._remedy.tooltip == "Set max_batch_size to 1"
        assert field.row[-1] == "cannot work"


def test_what_differs_from_the_default_is_marked_and_can_be_reset() -> None:
    form = BuildForm()
    field = form._fields["max_batch_size"]
    assert "changed" not in _classes(field)
    _type(form, "max_batch_size", "7")
    assert "changed" in _classes(field)
    assert "Default: 4." in _message(form, "max_batch_size")
    assert "1 changed from the default" in form._status.value
    assert "max_batch_size 7 requests changed, default: 4" in _words(form)
    field._reset.click()
    assert form.values["max_batch_size"] == 4
    assert "changed" not in _classes(field)


def test_the_plain_text_has_a_table_of_the_parameters() -> None:
    form = BuildForm(make_spec({"max_input_len": 4000, "threads": 2}))
    lines = form.plain().splitlines()
    table = lines[1 : lines.index("")]
    assert table[0].split() == ["parameter", "value", "chosen", "finding"]
    assert [line.split()[0] for line in table[1:]] == list(form._fields)
    starts = [table[0].index(column) for column in ("value", "chosen", "finding")]
    rows = {line.split()[0]: [line[at:].split("  ")[0].strip() for at in starts] for line in table}
    assert rows["max_input_len"] == ["4000 tokens", "changed, default: 512", ""]
    assert rows["max_seq_len"] == ["(max_input_len + max_output_len)", "default", "cannot work"]
    assert rows["threads"] == ["2", "changed, default: none", ""]


def test_reset_all_keeps_the_model(tmp_path: Path) -> None:
    model = make_sparse_model(tmp_path / "model", 1 << 20)
    form = BuildForm(make_spec({"model": str(model), "max_batch_size": 7, "quantization": "int4"}))
    form._reset.click()
    assert form.spec == make_spec({"model": str(model)})


def test_what_stands_for_nothing_is_shown_in_a_list() -> None:
    form = BuildForm(make_spec({"backend": "tensorrt_llm"}))
    control = form._fields["kv_cache_type"].control
    assert isinstance(control, widgets.Dropdown)
    assert control.label == "(paged)"
    assert form.values["kv_cache_type"] is None
    form.set(kv_cache_type="continuous")
    form.set(kv_cache_type=None)
    assert (control.label, form.values["kv_cache_type"]) == ("(paged)", None)


def test_a_folded_group_says_what_is_in_it() -> None:
    form = BuildForm(make_spec({"backend": "tensorrt_llm"}))
    accordion = form._groups._accordion
    assert accordion is not None
    assert "LoRA" in accordion.titles
    form.set(max_lora_rank=32)
    _type(form, "workers", "none at all")
    assert any(title.startswith("LoRA: 1 changed") for title in accordion.titles)
    assert "Advanced: 1 changed, 1 needs attention" in accordion.titles


def test_every_backend_gives_its_spec_back() -> None:
    for name in NAMES:
        spec = make_spec({"backend": name, "revision": "v2"})
        assert BuildForm(spec).spec == spec


# --- presets


@pytest.mark.parametrize(
    ("backend", "preset"), [(name, preset) for name in NAMES for preset in presets_of(name)]
)
def test_a_preset_can_be_built_and_says_why(backend: str, preset: Preset) -> None:
    gpus = [find(H200).as_gpu()]
    spec = preset.apply(make_spec({"backend": backend}), Model.read(DEMO_MODEL))
    Plan.make(spec, gpus=gpus).check_rules()
    assert preset.about.endswith(".")
    assert preset.source
    assert set(preset.values) <= set(parameters_of(type(spec)))


def test_where_the_presets_come_from_opens_without_a_mouse() -> None:
    last = BuildForm()._presets.children[-1].value
    assert last.startswith("<details><summary")
    opened = last.partition("</summary>")[2]
    for preset in presets_of("openvino"):
        assert f"<td>{preset.name}</td><td>{html.escape(preset.source)}</td>" in opened


def test_presets_replace_each_other_and_keep_the_rest() -> None:
    model = Model.read(DEMO_MODEL)
    start = make_spec({"threads": 2})
    for first in PRESETS["openvino"]:
        for second in PRESETS["openvino"]:
            assert second.apply(first.apply(start, model), model) == second.apply(start, model)
            assert second.apply(start, model).model_dump()["threads"] == 2


def test_a_pressed_preset_is_marked_until_a_value_changes() -> None:
    form = BuildForm()
    button = form._presets._buttons["latency"]
    button.click()
    assert form.values["max_batch_size"] == 1
    assert button.description == "✓ latency"
    _type(form, "max_batch_size", "2")
    assert button.description == "latency"


# --- the device


def test_a_plan_for_a_gpu_of_the_table_knows_its_memory_and_is_not_built_here() -> None:
    form = BuildForm(make_spec({"backend": "tensorrt_llm"}), device=H200, gpu_count=2)
    assert form.plan.device.name == H200
    assert len(form.plan.gpus) == 2
    assert f"device = 2 x {H200}" in form.plain()
    with pytest.raises(InputError, match="builds run on this machine"):
        form.check()


def test_what_the_table_has_of_a_gpu_is_shown_below_its_name_and_moves_nothing() -> None:
    form = BuildForm(make_spec({"backend": "tensorrt_llm"}), device=H200, gpu_count=2)
    told = form._devices._told
    assert "2 x H200 SXM 141GB: 140 GiB at 4,800 GB/s" in told.value
    assert "Source: NVIDIA H200 data sheet" in told.value
    assert 'class="quiet gpu"' in told.value
    assert ".gpu { height: 48px" in STYLE
    form._devices._name.value = "L4"
    assert "2 x L4: 22.5 GiB at 300 GB/s" in told.value


def test_a_processor_has_no_device_to_choose() -> None:
    form = BuildForm(make_spec(), device=H200)
    assert form._devices.layout.display == "none"
    assert form.check() == make_spec()
    form._choice.value = "tensorrt_llm"
    assert form._devices.layout.display == ""
    assert form.plan.device.name == H200


def test_the_baseline_is_planned_for_a_gpu_too_unless_its_own_device_is_the_processor() -> None:
    form = BuildForm(make_spec(backend="transformers"), device=H200, gpu_count=2)
    assert form._devices.layout.display == ""
    assert form.plan.fit is not None
    assert form.plan.fit.device.name == H200
    assert "1 x H200 SXM 141GB: 140 GiB at 4,800 GB/s" in form._devices._told.value
    with pytest.raises(InputError, match="builds run on this machine"):
        form.check()
    form.set(device="cpu")
    assert "It runs on the processor of this machine" in form._devices._told.value
    assert form.check().device == "cpu"  # type: ignore[attr-defined]


def test_an_unknown_device_is_a_sentence() -> None:
    with pytest.raises(InputError, match="H2000"):
        BuildForm(make_spec({"backend": "tensorrt_llm"}), device="H2000")
    with pytest.raises(InputError, match="gpu_count must be one of 1, 2, 4, 8; got 3"):
        BuildForm(make_spec({"backend": "tensorrt_llm"}), device=H200, gpu_count=3)


def test_a_number_of_gpus_can_be_chosen_only_where_it_changes_something() -> None:
    form = BuildForm(make_spec({"backend": "tensorrt_llm"}))
    count = form._devices._count
    assert count.disabled
    assert "tp_size x pp_size" in count.tooltip
    form._devices._name.value = H200
    assert not count.disabled
    assert count.tooltip == "How many of them there are."
    count.value = 4
    assert len(form.plan.gpus) == 4
    form._devices._name.value = "this machine"
    assert count.disabled
    with pytest.raises(InputError, match="gpu_count 4 needs the name of the GPU"):
        BuildForm(make_spec({"backend": "tensorrt_llm"}), gpu_count=4)


# --- the spec as text


CHOSEN: list[dict[str, Any]] = [
    {},
    {"max_batch_size": 7, "quantization": "int4", "symmetric": True, "max_seq_len": 700},
    {"backend": "tensorrt_llm", "smoothquant_val": 0.5, "lora_dir": 'a "b" \\ c\n\x7f\u2028ü'},
    {"backend": "tensorrt_llm_torch", "enable_block_reuse": False},
]


@pytest.mark.parametrize("values", CHOSEN)
def test_a_spec_comes_back_from_every_text(values: dict[str, Any], tmp_path: Path) -> None:
    spec = make_spec(values)
    assert spec_text.parse(spec_text.to_toml(spec)) == spec
    assert spec_text.parse(spec_text.to_json(spec)) == spec
    for name in ("a.toml", "a.json"):
        spec_text.save(spec, tmp_path / name)
        assert spec_text.load(tmp_path / name) == spec
    namespace: dict[str, Any] = {}
    exec(spec_text.parameters_cell(spec), namespace)
    assert make_spec({n: v for n, v in namespace.items() if n != "__builtins__"}) == spec


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_bach_size = 3\n", "'max_bach_size' is not a known parameter. Did you mean"),
        ('{"max_batch_size": 0}', "max_batch_size must be a whole number from 1 to 256; got 0."),
        ('backend = "nothing"', "There is no backend 'nothing'"),
        ("max_batch_size: 3", "neither TOML nor JSON"),
        ("{", "no JSON"),
        ("[1]", "A spec is an object"),
        ("  ", "The text is empty"),
        ("#" * 100_001, "100,001 characters"),
        ("[" * 50_000, "no JSON"),
    ],
)
def test_a_wrong_text_is_a_sentence_and_changes_nothing(text: str, sentence: str) -> None:
    form = BuildForm(make_spec({"max_batch_size": 7}))
    form._texts._pasted.value = text
    with pytest.raises(SpecError, match=sentence):
        form._texts.use()
    assert form.spec == make_spec({"max_batch_size": 7})


def test_a_pasted_spec_of_another_backend_is_shown() -> None:
    form = BuildForm()
    form._texts._pasted.value = json.dumps({"backend": "tensorrt_llm", "tp_size": 2})
    form._texts.use()
    assert form.spec == make_spec({"backend": "tensorrt_llm", "tp_size": 2})
    assert form._choice.value == "tensorrt_llm"


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    path = spec_text.save(make_spec(), tmp_path / "spec.toml")
    with pytest.raises(InputError, match="is there already"):
        spec_text.save(make_spec(), path)
    with pytest.raises(InputError, match="cannot be read"):
        spec_text.load(tmp_path / "none.toml")


def test_the_lines_of_the_same_spec() -> None:
    spec = make_spec({"max_batch_size": 7, "revision": "2024"})
    assert spec_text.command_line(spec) == "workbench build --revision=2024 --max-batch-size=7"
    assert spec_text.papermill_line(spec, "a.ipynb") == (
        "papermill a.ipynb out.ipynb -r backend openvino -r model demo -r revision 2024 "
        "-p max_batch_size 7"
    )


# --- the model


def test_a_model_is_read_again_only_when_its_files_change(tmp_path: Path) -> None:
    model = make_sparse_model(tmp_path / "model", 1 << 20)
    reader, spec = ModelReader(), make_spec({"model": str(model)})
    first = reader.read(spec)
    assert reader.read(spec.replace(max_batch_size=3)) is first
    assert reader.read(spec.replace(revision="main")) is first
    config = model / "config.json"
    before = config.stat()
    changed = json.loads(config.read_text()) | {"max_position_embeddings": 77}
    config.write_text(json.dumps(changed))
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert reader.read(spec).context_length == 77


def test_weights_that_are_brought_later_are_seen(tmp_path: Path) -> None:
    model = make_sparse_model(tmp_path / "model", 1 << 20)
    weights = next(model.glob("*.safetensors"))
    weights.rename(tmp_path / weights.name)
    form = BuildForm(make_spec({"model": str(model)}))
    assert "no weights, only its configuration" in _message(form, "model")
    (tmp_path / weights.name).rename(weights)
    form.set(max_batch_size=3)
    assert "no weights" not in _message(form, "model")


def test_what_nobody_foresaw_is_shown_in_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    form = BuildForm()

    def fail(_: BuildSpec) -> Model:
        raise OSError(5, "Input/output error", "/models/mine")

    monkeypatch.setattr(model_reader, "read_model", fail)
    _type(form, "model", "/models/mine")
    assert "The system refused /models/mine: Input/output error." in form._error.value


def test_what_the_hub_did_not_give_is_asked_for_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    said: list[Model | ModelError] = [ModelError("The hub cannot be reached.")]

    def read(spec: BuildSpec) -> Model:
        asked.append(spec.model)
        if isinstance(said[0], ModelError):
            raise said[0]
        return said[0]

    now = 1000.0
    monkeypatch.setattr(model_reader, "read_model", read)
    monkeypatch.setattr(model_reader.time, "monotonic", lambda: now)
    said_so: list[str] = []
    reader, spec = ModelReader(said_so.append), make_spec({"model": "open/whole"})
    for values in ({}, {"max_batch_size": 3}):
        with pytest.raises(ModelError, match="cannot be reached"):
            reader.read(spec.replace(**values))
    assert len(asked) == 1
    now += model_reader.PATIENCE
    partly = replace(Model.read(DEMO_MODEL), path=None, commit="1", unread="No headers.")
    said[0] = partly
    assert reader.read(spec) is partly
    assert reader.read(spec) is partly
    assert len(asked) == 2
    now += model_reader.PATIENCE
    reader.read(spec)
    assert len(asked) == 3
    (tmp_path / "open" / "whole").mkdir(parents=True)
    assert len(said_so) == 3
    reader.read(spec)
    assert len(asked) == 4
    assert len(said_so) == 3


def test_licence_gate_and_what_was_not_read_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    unread = replace(
        Model.read(DEMO_MODEL),
        path=None,
        counted_from="configuration",
        unread="The weights are damaged on the hub.",
        licence="<b>theirs</b>",
        gate="manual",
    )
    form = BuildForm()
    shown: list[str] = []

    def read(_: BuildSpec) -> Model:
        shown.append(form._status.value)
        return unread

    monkeypatch.setattr(model_reader, "read_model", read)
    form.set(model="open/whole")
    assert "Reading open/whole …" in shown[0]
    assert "Reading" not in form._status.value
    assert "Licence: &lt;b&gt;theirs&lt;/b&gt; (its model card)" in form._facts.value
    assert "Gated: the hub gives it to those whom its owners have let in" in form._facts.value
    assert "counted from config.json" in _message(form, "model")
    assert "The weights are damaged on the hub." in _message(form, "model")
    with pytest.raises(SpecError, match="can be planned with, but not built"):
        refuse(form.plan.room)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: 'llama3'  # theirs\n---\n", "llama3"),
        ("---\nlanguage: en\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_what_the_model_card_declares(
    tmp_path: Path, card: str, licence: str
) -> None:
    model = make_sparse_model(tmp_path / "model", 1 << 20)
    (model / "README.md").write_text(card)
    assert licence_of(model) == licence
    shown = BuildForm(make_spec({"model": str(model)})).plain()
    assert (f"Licence: {licence}" in shown) == bool(licence)


def test_what_is_too_long_for_its_place_shows_the_worst_and_opens() -> None:
    field = BuildForm()._fields["max_batch_size"]
    note = Finding("warn", "max_batch_size", "it is large.", "Use less.")
    field.say("", [note])
    assert "<details" not in field._message.value
    field.say("", [replace(note, level="ignored"), note, replace(note, level="refuse")])
    summary, _, whole = field._message.value.partition("</summary>")
    assert "<b>cannot work</b>: it is large. Use less." in summary
    assert "show all 3 findings" in summary
    places = [whole.index(mark) for mark in ("cannot work", "note", "no effect")]
    assert places == sorted(places)
    field.say("It must be a number, not <i>" + "x" * ROOM, [])
    summary, _, whole = field._message.value.partition("</summary>")
    assert "show all of it" in summary
    assert "&lt;i&gt;xxx" in whole
    assert "<i>" not in field._message.value


# --- already built


def _until(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_an_engine_that_is_there_is_offered_while_one_chooses(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    form = BuildForm()
    panel = BuildPanel(form)
    own = {**stocked.manifest["identity"]["spec"], "model": "demo"}
    form.show_spec(make_spec({**own, "max_batch_size": 2, "threads": 2}))
    _until(lambda: panel._offer.layout.display == "")
    assert f"Already built. The engine {stocked.key}" in panel._sentence.value
    assert panel._anyway_button.layout.display == "none"
    panel._take_button.click()
    assert panel.engine is not None
    assert panel.engine.key == stocked.key
    form.set(quantization="int4")
    assert panel._offer.layout.display == "none"


def test_a_refusal_goes_when_something_else_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    form = BuildForm(make_spec({"max_input_len": 4000}))
    panel = BuildPanel(form)
    panel.start()
    assert "are beyond the model" in panel._error.value
    form.set(max_input_len=64)
    assert panel._error.layout.display == "none"


def test_a_new_panel_follows_the_build_that_runs(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    compiling = faulty.gate()
    spec = faulty.spec()
    job = job_of(faulty.start(fault("compile", "stall", until=compiling)))
    compiling.wait_reached()
    panel = BuildPanel(spec, smoke=False)
    _until(lambda: panel.job_id == job.id)
    _until(lambda: not panel._cancel_button.disabled)
    assert panel._start_button.disabled
    compiling.open()
    _until(lambda: panel.engine is not None)


def test_every_backend_has_presets() -> None:
    purposes = {name: {preset.name for preset in presets_of(name)} for name in NAMES}
    eager = purposes.pop("transformers")
    every = {"throughput", "latency", "long context", "smallest memory"}
    assert purposes == dict.fromkeys(purposes, every)
    assert eager == {"long context", "smallest memory"}
    assert set(PRESETS) == set(NAMES)
